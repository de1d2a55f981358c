"""int8 weights, and activations whose range is found at run time."""

from dataclasses import dataclass
from typing import ClassVar

from onnxslim_bert.model.dense import stays_float
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.int8.layers import Format, write_dynamic
from onnxslim_bert.wording import plural


@dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Multiply uint8 activations, whose range is found at run time, by int8 weights; results stay float.

    Like quantize-static, but it needs no calibration data. A range is that of all rows of a batch, padding included, so
    the answer to a text depends on what is in its batch; with quantize-static it does not.

    format: contrib for com.microsoft.MatMulIntegerToFloat, qdq for standard operators only.
    embeddings: quantize the embedding tables too.
    reduce_range: as for quantize-static.
    """

    name: ClassVar[str] = "quantize-dynamic"
    format: Format = "contrib"
    embeddings: bool = True
    reduce_range: bool = False

    def apply(self, model: Model, ctx: Context) -> Change:
        left = stays_float(model)
        linears, tables = write_dynamic(model, self.format, embeddings=self.embeddings, reduce_range=self.reduce_range)
        done = f"{plural(linears, 'dense layer')} and {plural(tables, 'embedding table')} in int8"
        return Change(linears + tables, done + left)
