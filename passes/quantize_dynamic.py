"""int8 weights, and activations whose range is found at run time."""

from dataclasses import dataclass
from typing import ClassVar

from onnxslim_bert.model.dense import dense_layers, stays_float
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.int8.layers import Format, Int8Writer, quantize_tables


@dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Multiply uint8 activations, whose range is found at run time, by int8 weights; results stay float.

    Like quantize-static, but it needs no calibration data. A range is that of all rows of a batch, padding included, so
    the answer to a text depends on what is in its batch; with quantize-static it does not.

    format: contrib for com.microsoft.MatMulIntegerToFloat, qdq for standard operators only.
    embeddings: quantize the embedding tables too.
    """

    name: ClassVar[str] = "quantize-dynamic"
    format: Format = "contrib"
    embeddings: bool = True

    def apply(self, model: Model, ctx: Context) -> Change:
        writer = Int8Writer(model, self.format)
        linears, left = dense_layers(model), stays_float(model)
        for linear in linears:
            writer.dynamic(linear)
        tables = quantize_tables(model, writer) if self.embeddings else 0
        model.changed()
        return Change(len(linears) + tables, f"{len(linears)} dense layers and {tables} embedding tables in int8{left}")
