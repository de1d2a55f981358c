"""Store and compute in single precision."""

from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import redirect
from onnxslim_bert.model.halves import HALF, SINGLE, has_halves, widen
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.wording import plural


@dataclass(frozen=True)
class Float32(Pass):
    """Convert weights and activations from float16 to float32; inputs and outputs keep their types.

    For a model of which only a float16 file is left: every other pass then takes it. The weights keep the values that
    they have, and the file has twice the size. Example: `-p "float32,canonicalize?,fuse?,quantize-static"`.
    """

    name: ClassVar[str] = "float32"

    def apply(self, model: Model, ctx: Context) -> Change:
        if not has_halves(model):
            return Change(0, "nothing is float16")
        count = sum(constant.values.dtype == HALF for constant in model.constants().values())
        graph = model.graph
        inputs, outputs = ([end for end in ends if end.dtype == HALF] for ends in (graph.inputs, graph.outputs))
        widen(model)
        for tensor in inputs:
            wide = gs.Variable(f"{tensor.name}/float32", SINGLE, tensor.shape)
            redirect(graph, tensor, wide)
            graph.nodes.append(_cast(tensor, wide, onnx.TensorProto.FLOAT))
        for tensor in outputs:
            wide = gs.Variable(f"{tensor.name}/float32", SINGLE, tensor.shape)
            for reader in list(tensor.outputs):
                reader.inputs = [wide if each is tensor else each for each in reader.inputs]
            writer = tensor.inputs[0]
            writer.outputs = [wide if each is tensor else each for each in writer.outputs]
            graph.nodes.append(_cast(wide, tensor, onnx.TensorProto.FLOAT16))
        for tensor in (*inputs, *outputs):
            tensor.dtype = HALF
        model.changed()
        return Change(count, f"{plural(count, 'float16 constant')} became float32")


def _cast(source: gs.Tensor, result: gs.Tensor, to: int) -> gs.Node:
    return gs.Node("Cast", f"{result.name}/cast", {"to": to}, [source], [result])
