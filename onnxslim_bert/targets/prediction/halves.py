"""Turn a float16 graph into the same graph in float32, and back.

The graph that a provider is shown is written by a CPU session, and the CPU provider has hardly a float16 kernel: it
would write casts and decomposed operators that no other provider is shown.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.model.onnx_model import Model

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)


def has_halves(model: Model) -> bool:
    """Whether a weight or an input is float16."""
    kinds = [constant.values.dtype for constant in _constants(model.graph)]
    return HALF in [*kinds, *(tensor.dtype for tensor in model.graph.inputs)]


def widen(model: Model) -> None:
    """Make float32 of everything that is float16: weights, inputs, outputs, what casts and constants give."""
    for constant in _constants(model.graph):
        if constant.values.dtype == HALF:
            constant.values = constant.values.astype(SINGLE)
    for tensor in (*model.graph.inputs, *model.graph.outputs):
        if tensor.dtype == HALF:
            tensor.dtype = SINGLE
    for node in model.graph.nodes:
        if node.op == "Cast" and node.attrs["to"] in (HALF, onnx.TensorProto.FLOAT16):
            node.attrs["to"] = onnx.TensorProto.FLOAT


def narrow(graph: gs.Graph) -> None:
    """Make float16 of everything that is float32."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant) and tensor.values.dtype == SINGLE:
            with np.errstate(over="ignore"):
                tensor.values = tensor.values.astype(HALF)
        elif not isinstance(tensor, gs.Constant) and tensor.dtype == SINGLE:
            tensor.dtype = HALF


def _constants(graph: gs.Graph) -> Iterator[Any]:
    """The constants of a graph: those that nodes read, and those that nodes have as attributes."""
    yield from (tensor for tensor in graph.tensors().values() if isinstance(tensor, gs.Constant))
    yield from (value for node in graph.nodes for value in node.attrs.values() if isinstance(value, gs.Constant))
