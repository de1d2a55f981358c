"""Every operator between DequantizeLinear and QuantizeLinear: activations in 16 or 8 bits, weights in 8."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from onnxslim_bert.calibration.observers import Range, Want
from onnxslim_bert.graph.probe import nodes_between
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.int8.qdq_form import to_qdq_form
from onnxslim_bert.rewriting.int8.qdq_insert import insert_qdq
from onnxslim_bert.rewriting.int8.qdq_ranges import MOVES, wanted
from onnxslim_bert.rewriting.trials import Trials

Activations = Literal["u16", "u8", "mixed"]
GROWTH = 1.25  # of the damage that 16 bits do, which 8 bits inside attention may bring it to


@dataclass(frozen=True)
class QuantizeQdq(Pass):
    """Quantize the whole graph, so that a processor for integers (QNN's HTP) takes every node.

    Matrices are int8 with a scale for each output channel, biases of Gemm int32; all else has one scale a tensor,
    shared with what only moves its values (Reshape, Transpose, Slice, lookups). A lookup in a large table becomes a
    product of int8 rows and the rows' largest values. Ranges are the smallest and the largest value on calibration
    rows; those of Softmax, Tanh, GELU, tables and the mask's bias follow from what they are.

    Needs a float graph of standard operators with fixed shapes and a finite mask:
    canonicalize?,fuse{style=standard}?,fix-shapes,mask-bias?,split-sums?

    activations: u16; u8, which few models bear; or mixed: u16, and u8 inside those attentions (scores, probabilities,
    the mixed values) for which calibration rows held back show little damage.

    What QNN takes: onnxruntime/core/optimizer/qdq_transformer/selectors_actions/qdq_selectors.cc and
    onnxruntime/python/tools/quantization/execution_providers/qnn/quant_config.py of
    https://github.com/microsoft/onnxruntime
    """

    name: ClassVar[str] = "quantize-qdq"
    activations: Activations = "u16"

    @property
    def measures(self) -> bool:
        return True

    def wants(self, model: Model) -> Iterable[Want]:
        return [Want(name, "minmax") for name in wanted(to_qdq_form(model.clone()).tensors)]

    def apply(self, model: Model, ctx: Context) -> Change:
        seen = {want.tensor: span for want, span in ctx.stats.items()}
        attentions = attention_nodes(model) if self.activations == "mixed" else []
        bearable = choose_narrow(*damages(model, seen, attentions, ctx.trials)) if attentions else []
        narrow = {name for layer in bearable for name in attentions[layer]}
        done = insert_qdq(model, seen, np.uint8 if self.activations == "u8" else np.uint16, narrow)
        note = f"{done.activations} activations ({self.activations}) and {done.constants} constants quantized"
        if attentions:
            note += f"; attention of {len(bearable)} of {len(attentions)} layers in u8"
        return Change(done.activations + done.constants, note)


def attention_nodes(model: Model) -> list[set[str]]:
    """For each layer the nodes that compute scores, probabilities and the mixed values, by name."""
    tensors = model.graph.tensors()
    found = []
    for layer in model.encoder.layers:
        roles = [tensors[linear.result] for linear in (layer.query, layer.key, layer.value)]
        found.append({node.name for node in nodes_between(roles, tensors[layer.context]) if node.op not in MOVES})
    return found


def damages(
    model: Model, seen: Mapping[str, Range], parts: Sequence[set[str]], trials: Trials
) -> tuple[float, list[float]]:
    """The damage of `model` in 16 bits, and with each of `parts` in 8."""
    found = []
    for narrow in [set[str](), *parts]:
        candidate = model.clone()
        insert_qdq(candidate, seen, np.uint16, narrow)
        found.append(trials.damage(candidate))
        trials.progress("measuring 8 bits", len(found), len(parts) + 1)
    return found[0], found[1:]


def choose_narrow(base: float, damaged: Sequence[float], growth: float = GROWTH) -> list[int]:
    """The parts that may work in fewer bits, cheapest first, while the damage stays within `growth` times `base`.

    damaged: the damage with each part alone. Squared damages add up, parts erring independently.
    """
    added = [max(damage**2 - base**2, 0) for damage in damaged]
    chosen: list[int] = []
    for part in sorted(range(len(added)), key=added.__getitem__):
        if sum(added[i] for i in [*chosen, part]) > (growth**2 - 1) * base**2:
            break
        chosen.append(part)
    return chosen
