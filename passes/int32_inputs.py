"""Token ids, masks and token types as int32."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import renew_shapes
from onnxslim_bert.rewriting.contract import Change, Context, Pass


@dataclass(frozen=True)
class Int32Inputs(Pass):
    """Make every int64 input int32, for NNAPI, which has no int64. Exact; callers then feed int32.

    Lookups (Gather) and Casts read the int32 input itself; other nodes read it through a new Cast to int64.
    """

    name: ClassVar[str] = "int32-inputs"
    exact: ClassVar[float | None] = 1e-5
    empty_rows: ClassVar[bool] = True

    def apply(self, model: Model, ctx: Context) -> Change:
        wide = [tensor for tensor in model.graph.inputs if tensor.dtype == np.int64]
        for tensor in wide:
            narrow(model.graph, tensor)
        if not wide:
            return Change(0, "no input is int64")
        model.changed()
        renew_shapes(model)
        return Change(len(wide), f"{', '.join(tensor.name for tensor in wide)}: int32")


def narrow(graph: gs.Graph, tensor: gs.Tensor) -> None:
    """Make the input `tensor` int32."""
    tensor.dtype = np.dtype(np.int32)
    others = [node for node in tensor.outputs if not _takes_int32(node, tensor)]
    if not others:
        return
    wide = Builder(graph, tensor.name).node("Cast", "int64", [tensor], to=onnx.TensorProto.INT64)
    for node in others:
        for i, source in enumerate(node.inputs):
            if source is tensor:
                node.inputs[i] = wide


def _takes_int32(node: gs.Node, tensor: gs.Tensor) -> bool:
    """Whether `node` gives the same for `tensor` in int32: it looks up by it or casts it."""
    looks_up = node.op == "Gather" and node.inputs[0] is not tensor
    return looks_up or node.op == "Cast"
