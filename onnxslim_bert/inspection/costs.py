"""Parameters, bytes and FLOPs by part of a model."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import producer
from onnxslim_bert.inspection.encoder_facts import packed_words
from onnxslim_bert.inspection.flops import flops_by_part
from onnxslim_bert.inspection.parts import PARTS, PartName, part_of_nodes
from onnxslim_bert.inspection.sharing import Shared
from onnxslim_bert.model.embeddings import table_of
from onnxslim_bert.model.linear import is_linear, read_linear
from onnxslim_bert.model.narrow_weights import Narrow
from onnxslim_bert.model.onnx_model import Model


@dataclass(frozen=True)
class Cost:
    """One part's share of a model, or the whole of it ("total").

    parameters: elements of tables (not the bytes that several are packed in), of dense matrices and their biases, and
    of norms; shared ones count once. nbytes: of all constants that the file stores, scales of int8 weights included.
    flops: see `flops_by_part`.
    """

    part: str
    parameters: int
    nbytes: int
    flops: int


def measure_costs(
    model: Model, fused: Model, shared: Sequence[Shared], narrow: Iterable[Narrow], batch: int, seq: int
) -> tuple[Cost, ...]:
    """Every part of a canonicalized `model`, of which `fused` is the fused form.

    narrow: weights that the file stores in fewer bits.
    """
    as_stored = {weight.name: weight.nbytes for weight in narrow}
    owners = _owners(fused)
    learned = set(_learned(fused.graph))
    flops = flops_by_part(fused, batch, seq)
    repeated = {name for group in shared for name in group.constants[1:]}
    not_stored = {name for group in shared for name in group.constants[group.copies :]}
    parameters, nbytes = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    packed = packed_words(fused)
    entries = {} if packed is None else dict.fromkeys(packed.planes, 0) | {packed.planes[0]: packed.entries}
    for name, tensor in model.constants().items():
        part = owners.get(name, "other")
        parameters[part] += entries.get(name, int(tensor.values.size)) if name in learned - repeated else 0
        nbytes[part] += 0 if name in not_stored else as_stored.get(name) or int(tensor.values.nbytes)
    return tuple(Cost(part, parameters[part], nbytes[part], flops.get(part, 0)) for part in PARTS)


def _owners(fused: Model) -> dict[str, PartName]:
    """The first part that reads each constant, by the constant's name."""
    parts = part_of_nodes(fused)
    owners: dict[str, PartName] = {}
    for node in sorted(fused.graph.nodes, key=lambda node: PARTS.index(parts[id(node)])):
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                owners.setdefault(tensor.name, parts[id(node)])
    return owners


def _learned(graph: gs.Graph) -> Iterator[str]:
    """The names of constants that training found, whatever a quantizer added to them."""
    tensors = graph.tensors()
    for node in graph.nodes:
        if node.op == "LayerNormalization":
            yield from (_stored(tensor).name for tensor in node.inputs[1:])
        elif (table := table_of(node)) is not None:
            yield table.name
        elif is_linear(node):
            linear = read_linear(node)
            yield linear.weight
            if linear.bias:
                yield _stored(tensors[linear.bias]).name


def _stored(tensor: gs.Tensor) -> gs.Tensor:
    """The stored constant behind `tensor`: what a DequantizeLinear makes it from, or `tensor` itself."""
    above = producer(tensor)
    return above.inputs[0] if above is not None and above.op == "DequantizeLinear" else tensor
