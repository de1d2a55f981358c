"""Put every operator between DequantizeLinear and QuantizeLinear: activations in 16 or 8 bits, weights in 8."""

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
from onnxslim_bert.wording import plural

Activations = Literal["u16", "u8", "mixed"]
GROWTH = 1.25  # 8 bits inside attention may bring the damage to this many times that of 16 bits


@dataclass(frozen=True)
class QuantizeQdq(Pass):
    """Quantize the whole graph, so that a processor for integers (QNN's HTP) takes every node.

    What gets which numbers:
    - matrices: int8, a scale for each output channel; biases of Gemm: int32;
    - large tables: int8 rows scaled to 1, which a lookup multiplies by the row's largest value;
    - all other tensors: `activations`, one scale each; what only moves a tensor's values (Reshape, Transpose, Slice,
      lookups) leaves them with that tensor's scale.
    Ranges are the smallest and the largest value on calibration rows. Those of Softmax, Tanh, GELU, tables and the
    mask's bias are computed instead. Example: Softmax has 0 to 1.

    Needs a float graph of standard operators with fixed shapes and a finite mask:
    canonicalize?,fuse{style=standard}?,fix-shapes,mask-bias?,split-sums?

    activations: u16 for 16 bits; u8 for 8, which few models bear; or mixed for 16 bits, but 8 inside the attentions
        (scores, probabilities, the mixed values) where that does little damage on held-back calibration rows.

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
        constants = plural(done.constants, "constant")
        note = f"{plural(done.activations, 'activation')} ({self.activations}) and {constants} quantized"
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
    """The damage of `model` in 16 bits; and for each of `parts`, node names, the damage with that part alone in 8."""
    found = []
    for narrow in [set[str](), *parts]:
        candidate = model.clone()
        insert_qdq(candidate, seen, np.uint16, narrow)
        found.append(trials.damage(candidate))
        trials.progress("measuring 8 bits", len(found), len(parts) + 1)
    return found[0], found[1:]


def choose_narrow(base: float, damaged: Sequence[float], growth: float = GROWTH) -> list[int]:
    """The numbers of the parts that may work in fewer bits, cheapest first.

    base: the damage with none. damaged: with each part alone. Parts are taken while the damage of all taken stays
    within `growth` times `base`. Parts err independently, so squares add up: base=3 and parts that alone bring it to 5
    and 5 give sqrt(9 + 16 + 16) = 6.4 together.
    """
    added = [max(damage**2 - base**2, 0) for damage in damaged]
    chosen: list[int] = []
    for part in sorted(range(len(added)), key=added.__getitem__):
        if sum(added[i] for i in [*chosen, part]) > (growth**2 - 1) * base**2:
            break
        chosen.append(part)
    return chosen
