"""Store and compute in single precision."""

from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError, one_line
from onnxslim_bert.graph.edit import redirect
from onnxslim_bert.model.halves import HALF, SINGLE, has_halves, widen
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.weights.restored import restore, restores
from onnxslim_bert.wording import plural


@dataclass(frozen=True)
class Float32(Pass):
    """Convert float16 weights and activations to float32, and weights that are stored in fewer bits and restored as the
    graph runs (MatMulNBits, DequantizeLinear); inputs and outputs keep their types.

    For a model of which only a float16 file, or one of 4 bits, is left: every other pass then takes it. The weights
    keep the values that they have, and the file grows. Example: `-p "float32,canonicalize?,fuse?,quantize-static"`.
    Where activations are integers, too, nothing is restored.
    """

    name: ClassVar[str] = "float32"

    def apply(self, model: Model, ctx: Context) -> Change:
        halves, bits = has_halves(model), restores(model)
        if not (halves or bits):
            return Change(0, "nothing is float16, and no weight is restored from fewer bits beside float activations")
        wide = _widened(model) if halves else 0
        try:
            restored = restore(model) if bits else 0
        except ValueError as error:
            raise PassError(f"float32: a weight cannot be restored: {one_line(error)}") from error
        said = {"float16 constant": (wide, "became float32"), "weight": (restored, "restored from fewer bits")}
        notes = [f"{plural(count, what)} {done}" for what, (count, done) in said.items() if count]
        return Change(wide + restored, "; ".join(notes))


def _widened(model: Model) -> int:
    """Make float32 of all that is float16; returns how many constants were."""
    count = sum(int(constant.values.dtype == HALF) for constant in model.constants().values())
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
    return count


def _cast(source: gs.Tensor, result: gs.Tensor, to: int) -> gs.Node:
    return gs.Node("Cast", f"{result.name}/cast", {"to": to}, [source], [result])
