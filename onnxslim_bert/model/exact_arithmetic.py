"""Find the arithmetic that must not be done in half precision: on positions, and of squares."""

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant, nodes_between, producer
from onnxslim_bert.model.linear import is_linear

BENDS = frozenset(["Cos", "Sin", "Log", "Exp", "Pow", "Floor", "Ceil", "Round", "Mod", "CumSum"])
DECIDES = frozenset(["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
FLOATS = (1, 10, 11, 16)  # of onnx.TensorProto.DataType
NORM = frozenset(["ReduceMean", "Add", "Sqrt", "Reciprocal", "Div"])


def exact_nodes(graph: gs.Graph) -> list[gs.Node]:
    """The nodes whose results float16 would change by more than rounding them once. They are of two kinds.

    What is computed of positions and masks alone, up to a cosine, a logarithm or a comparison. Example: float16 does
    not hold position 2049, and a bucket of relative positions is a logarithm rounded down.
    The squares of a norm without a mean (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467): 256 squared is
    infinite in float16.
    """
    learned, found = set[int](), dict[int, gs.Node]()
    for node in graph.nodes:
        if is_linear(node) or _looks_up(node) or any(id(tensor) in learned for tensor in node.inputs):
            learned |= {id(tensor) for tensor in node.outputs}
        elif node.op in BENDS or node.op in DECIDES or (node.op == "Cast" and node.attrs["to"] not in FLOATS):
            found |= {id(other): other for tensor in node.inputs for other in nodes_between([], tensor)}
            found[id(node)] = node
    found |= {id(node): node for node in _root_mean_squares(graph)}
    return [node for node in graph.nodes if id(node) in found]


def _looks_up(node: gs.Node) -> bool:
    """Whether `node` reads rows of a float table."""
    values = constant(node.inputs[0]) if node.op == "Gather" else None
    return values is not None and values.ndim > 1 and values.dtype.kind == "f"


def _root_mean_squares(graph: gs.Graph) -> Iterator[gs.Node]:
    for node in graph.nodes:
        square = producer(node.inputs[0]) if node.op == "ReduceMean" else None
        if square is None or square.op not in ("Pow", "Mul") or _is_centred(square.inputs[0]):
            continue
        yield from (square, node)
        last = node
        while last.op not in ("Reciprocal", "Div") and len(readers := last.outputs[0].outputs) == 1:
            last = readers[0]
            if last.op not in NORM:
                break
            yield last


def _is_centred(tensor: gs.Tensor) -> bool:
    """Whether a mean was taken off `tensor`."""
    above = producer(tensor)
    return above is not None and above.op == "Sub"
