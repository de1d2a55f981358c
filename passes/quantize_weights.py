"""int8 weights that a provider restores as it multiplies; activations stay float."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.model.dense import dense_layers, stays_float, tables_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.int8.quantizers import quantize_columns_affine, quantize_rows
from onnxslim_bert.wording import plural


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Store dense weights and embedding tables in eight bits, each with a DequantizeLinear in front of its readers.

    Dense weights have one scale and one zero point an output channel, embedding tables one scale a row, symmetric.
    Standard operators only, and no calibration data. What several layers share, or a table and the head of a language
    model, is quantized and stored once.

    For providers that keep such weights compressed and compute in bfloat16 or float, as OpenVINO does
    (https://docs.openvino.ai/2025/openvino-workflow/model-optimization-guide/weight-compression.html). ONNX Runtime's
    CPU provider makes MatMulNBits of them, which is half as fast as what `quantize-static` writes.

    embeddings: quantize the embedding tables too.
    """

    name: ClassVar[str] = "quantize-weights"
    embeddings: bool = True

    def apply(self, model: Model, ctx: Context) -> Change:
        tables = tables_of(model) if self.embeddings else []
        tables = [name for name in tables if model.array(name).dtype == np.float32]
        output_axis = {linear.weight: 0 if linear.trans_b else 1 for linear in dense_layers(model)}
        left = stays_float(model)
        for name in tables:
            integers, scales = quantize_rows(model.array(name))
            _replace(model, name, 0, integers, scales[:, 0])
        for name, axis in output_axis.items():
            if name in tables:  # tied to the head, which has the table's rows as output channels
                continue
            weight = model.array(name)
            integers, *steps = quantize_columns_affine(weight if axis == 1 else weight.T)
            _replace(model, name, axis, integers if axis == 1 else integers.T, *steps)
        model.changed()
        done = f"{plural(len(output_axis), 'dense weight')} and {plural(len(tables), 'embedding table')} in int8"
        return Change(len({*tables, *output_axis}), done + left)


def _replace(model: Model, name: str, axis: int, integers: Array, *steps: Array) -> None:
    """Let the readers of the constant `name` read `integers`, restored with `steps` (scales, zero points) along `axis`.

    https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
    """
    build = Builder(model.graph, "int8")
    parts = zip(("int8", "scales", "zero_points"), (integers, *steps), strict=False)
    stored = [build.constant(f"{name}/{part}", np.ascontiguousarray(values)) for part, values in parts]
    restored = build.node("DequantizeLinear", f"{name}/restored", stored, axis=axis)
    redirect(model.graph, model.constants()[name], restored)
