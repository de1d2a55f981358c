"""Turn a float16 graph into the same graph in float32, and back.

The graph that a provider is shown is written by a CPU session, and the CPU provider has hardly a float16 kernel: it
would write casts and decomposed operators that no other provider is shown.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.model.onnx_model import Model

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)


def has_halves(model: Model) -> bool:
    """Whether a weight or an input is float16."""
    graphs = list(_graphs(model.graph))
    constants = [*(each for graph in graphs for each in _constants(graph)), *(each for *_, each in _held(graphs))]
    return HALF in [*(each.values.dtype for each in constants), *(tensor.dtype for tensor in model.graph.inputs)]


def remedy(graph: gs.Graph, dtype: np.dtype) -> str:
    """What to do about a weight of `dtype` where float32 is needed, in words."""
    restored = dtype == HALF or any(node.op == "MatMulNBits" for node in graph.nodes)
    return f"start from the float32 model{', or put float32 before it' if restored else ''}"


def widen(model: Model) -> None:
    """Make float32 of everything that is float16: weights, inputs, outputs, what casts and constants give."""
    graphs = list(_graphs(model.graph))
    for graph in graphs:
        for constant in _constants(graph):
            if constant.values.dtype == HALF:
                constant.values, constant.export_dtype = constant.values.astype(SINGLE), None  # a copy keeps the type
        for tensor in (*graph.inputs, *graph.outputs):
            if tensor.dtype == HALF:
                tensor.dtype = SINGLE
        for node in graph.nodes:
            if node.op == "Cast" and node.attrs["to"] in (HALF, onnx.TensorProto.FLOAT16):
                node.attrs["to"] = onnx.TensorProto.FLOAT
    for node, key, constant in _held(graphs):  # copies of the graph share these
        if constant.values.dtype == HALF:
            node.attrs[key] = gs.Constant(constant.name, constant.values.astype(SINGLE))


def narrow(graph: gs.Graph) -> None:
    """Make float16 of everything that is float32."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant) and tensor.values.dtype == SINGLE:
            with np.errstate(over="ignore"):
                tensor.values = tensor.values.astype(HALF)
        elif not isinstance(tensor, gs.Constant) and tensor.dtype == SINGLE:
            tensor.dtype = HALF


def _constants(graph: gs.Graph) -> list[gs.Constant]:
    return [tensor for tensor in graph.tensors().values() if isinstance(tensor, gs.Constant)]


def _held(graphs: Sequence[gs.Graph]) -> list[tuple[gs.Node, str, gs.Constant]]:
    """The constants that nodes have as attributes, each with its node and the attribute's name."""
    nodes = [node for graph in graphs for node in graph.nodes]
    return [(node, key, each) for node in nodes for key, each in node.attrs.items() if isinstance(each, gs.Constant)]


def _graphs(graph: gs.Graph) -> Iterator[gs.Graph]:
    """A graph, and those inside of it."""
    yield graph
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield from _graphs(value)
