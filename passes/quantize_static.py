"""int8 weights, and activations quantized with ranges that calibration found."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim_bert.calibration.ranges import METHODS, Method, observer_of, quantizer_range
from onnxslim_bert.contract import Change, Context, Pass, Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.float_layers import read_float_layers
from onnxslim_bert.int8 import activation_quantizer, mean_rounding
from onnxslim_bert.int8_graph import Format, Int8Writer
from onnxslim_bert.linear import Linear
from onnxslim_bert.model import Model

NARROWEST = 32  # outputs of a task head from which int8 saves anything
FORMATS: tuple[Format, ...] = ("contrib", "qdq")


@dataclass(frozen=True)
class QuantizeStatic(Pass):
    """Multiply uint8 activations by int8 weights in every dense layer; results stay float.

    Weights have one scale an output channel, activations one scale and zero point a tensor; an input that several
    layers share is quantized once, and so is a weight. Embedding tables have one scale a row.

    method: how ranges follow from calibration: minmax, moving-average, percentile, entropy or mse.
    format: "contrib" for com.microsoft.MatMulIntegerToFloat, "qdq" for standard operators only.
    correct_bias: take the mean error that rounding leaves on calibration rows off each bias (Nagel et al. 2019,
    https://arxiv.org/abs/1906.04721).
    embeddings: quantize the embedding tables too.
    reduce_range: give up as much of the weights' range as it takes that no two neighbouring products leave 16 bits,
    for CPUs with AVX2 or AVX-512 but no VNNI, which add them there (`onnxslim_bert/saturation.py`).
    float_layers: encoder layers whose dense layers stay float32, as 0/5; numbers from 0 in the encoder as it is given.

    Jacob et al. 2018, https://arxiv.org/abs/1712.05877
    """

    name: ClassVar[str] = "quantize-static"
    method: Method = "minmax"
    format: Format = "contrib"
    correct_bias: bool = True
    embeddings: bool = True
    reduce_range: bool = False
    float_layers: str = ""

    def wants(self, model: Model) -> Iterable[Want]:
        kinds = [observer_of(self._method()), *(["sample"] if self.correct_bias else [])]
        sources = dict.fromkeys(linear.source for linear in self._linears(model))
        return [Want(source, kind) for source in sources for kind in kinds]

    def apply(self, model: Model, ctx: Context) -> Change:
        method = self._method()
        writer = Int8Writer(model, format_of(self.format), reduce_range=self.reduce_range)
        linears = self._linears(model)
        for linear in linears:
            spanned = quantizer_range(method, ctx.stats[Want(linear.source, observer_of(method))])
            scale, zero_point = activation_quantizer(spanned.low, spanned.high)
            correction = None
            if self.correct_bias:
                rows = ctx.stats[Want(linear.source, "sample")]
                weight = model.array(linear.weight)
                matrix = weight.T if linear.trans_b else weight
                correction = mean_rounding(rows, matrix, scale, zero_point, reduce_range=self.reduce_range)
            writer.static(linear, scale, zero_point, correction)
        tables = quantize_tables(model, writer) if self.embeddings else 0
        model.changed()
        note = f"{len(linears)} dense layers ({method}) and {tables} embedding tables in int8"
        left = f"; float32: layers {self.float_layers}" if self.float_layers else ""
        return Change(len(linears) + tables, note + left)

    def _linears(self, model: Model) -> list[Linear]:
        """What is quantized."""
        layers = [model.encoder.layers[index] for index in read_float_layers(model, self.float_layers)]
        left = {matrix.node for layer in layers for linear in layer.linears.values() for matrix in linear.matrices}
        linears = [linear for linear in dense_layers(model) if linear.node not in left]
        if not linears:
            raise PassError(f"quantize-static: float-layers={self.float_layers} leaves nothing to quantize")
        return linears

    def _method(self) -> Method:
        found = next((method for method in METHODS if method == self.method), None)
        if found is None:
            raise PassError(f"quantize-static: method {self.method!r} is not one of {', '.join(METHODS)}")
        return found


def dense_layers(model: Model) -> list[Linear]:
    """The dense layers that are still float, in execution order; the few outputs of a classifier stay float."""
    encoder = model.encoder
    projection = [encoder.embeddings.projection] if encoder.embeddings.projection else []
    head = [linear for linear in encoder.head if linear.d_out >= NARROWEST]
    layers = [linear for layer in encoder.layers for linear in layer.linears.values()]
    linears = list(dict.fromkeys(matrix for linear in (*projection, *layers, *head) for matrix in linear.matrices))
    if all(linear.quantized for linear in linears):
        raise PassError("the encoder's dense layers are quantized already; start from the float model")
    constants = model.constants()
    found = [linear for linear in linears if not linear.quantized]
    for linear in found:
        if (dtype := constants[linear.weight].values.dtype) != np.float32:
            raise PassError(f"the weight at node {linear.node!r} is {dtype}; start from the float32 model")
    return found


def quantize_tables(model: Model, writer: Int8Writer) -> int:
    """Quantize the float embedding tables; how many there were."""
    tables = model.encoder.embeddings.tables.values()
    return sum(1 for name in tables if model.array(name).dtype.kind == "f" and writer.table(name))


def format_of(name: str) -> Format:
    """The format called `name`. Raises PassError."""
    found = next((form for form in FORMATS if form == name), None)
    if found is None:
        raise PassError(f"format {name!r} is not one of {', '.join(FORMATS)}")
    return found
