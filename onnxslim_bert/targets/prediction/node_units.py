"""Which nodes of a graph belong together because they compute on integers."""

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.targets.prediction.partitions import Unit
from onnxslim_bert.targets.prediction.rules import dtype, inputs

READS, WRITES = "DequantizeLinear", "QuantizeLinear"


def single_units(graph: gs.Graph) -> list[Unit]:
    """Every node alone."""
    return [Unit(node) for node in graph.nodes]


def quantized_units(graph: gs.Graph) -> list[Unit]:
    """Every node with the DequantizeLinear that it reads and the QuantizeLinear that it writes, or alone.

    They belong together when all computed floats that the node reads come from DequantizeLinear, and nothing but
    QuantizeLinear reads its result
    (https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/qdq_transformer/selectors_actions/shared/utils.cc).
    Nothing else reads its DequantizeLinear: ONNX Runtime has written one for each reader by then.
    """
    groups = [unit for node in graph.nodes if node.op not in (READS, WRITES) if (unit := _group(node))]
    unit_of = {id(unit.node): unit for unit in groups}
    edges = {id(node) for unit in groups for node in (*unit.before, *unit.after)}
    return [unit_of.get(id(node)) or Unit(node) for node in graph.nodes if id(node) not in edges]


def _group(node: gs.Node) -> Unit | None:
    floats = [t for t in inputs(node) if dtype(t) == "float32" and constant(t) is None]
    before = [source for t in floats if (source := producer(t)) is not None and source.op == READS]
    after = list({id(reader): reader for t in node.outputs for reader in t.outputs}.values())
    alone = all(len(tensor.outputs) == 1 for source in before for tensor in source.outputs)
    written = bool(after) and all(reader.op == WRITES for reader in after)
    if not before or len(before) < len(floats) or not alone or not written:
        return None
    return Unit(node, tuple({id(source): source for source in before}.values()), tuple(after))
