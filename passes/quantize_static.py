"""int8 weights, and activations quantized with ranges that calibration found."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.calibration.ranges import METHODS, Method, observer_of, quantizer_range
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.dense import dense_layers, stays_float
from onnxslim_bert.model.layer_sets import check_layers, check_together
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.int8.best_method import method_damages
from onnxslim_bert.rewriting.int8.layers import Format, Int8Writer, quantize_tables
from onnxslim_bert.rewriting.int8.quantizers import activation_quantizer, mean_rounding
from onnxslim_bert.rewriting.options import check_each_once, write_option

Choice = Literal[Method, "best"]


@dataclass(frozen=True)
class QuantizeStatic(Pass):
    """Multiply uint8 activations by int8 weights in every dense layer; results stay float.

    Weights have one scale for each output channel, activations one scale and zero point for each tensor, embedding
    tables one scale for each row. An input or a weight that several layers share is quantized once.

    method: how an activation's range follows from calibration rows: minmax, moving-average, percentile, entropy or mse;
        best tries all five and takes the one that damages the outputs least on rows held back from calibration.
    format: contrib for com.microsoft.MatMulIntegerToFloat, qdq for standard operators only.
    correct_bias: add to each bias what rounding takes off the layer's mean result on calibration rows (Nagel et al.
        2019, https://arxiv.org/abs/1906.04721).
    embeddings: quantize the embedding tables too.
    reduce_range: make the integers of weights smaller where two neighbouring products could leave 16 bits together.
        CPUs with AVX2 or AVX-512 but no VNNI add such pairs in 16 bits. Example: 255 * 127 + 255 * 127 is 64,770, more
        than the 32,767 that fit (`onnxslim_bert/rewriting/int8/saturation.py`).
    float_layers: encoder layers whose dense layers stay float32, as 0/5, counted from 0 in the encoder as it is given.

    Jacob et al. 2018, https://arxiv.org/abs/1712.05877
    """

    name: ClassVar[str] = "quantize-static"
    method: Choice = "minmax"
    format: Format = "contrib"
    correct_bias: bool = True
    embeddings: bool = True
    reduce_range: bool = False
    float_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_each_once(self.name, "float_layers", self.float_layers)

    @property
    def measures(self) -> bool:
        return self.method == "best"

    def wants(self, model: Model) -> Iterable[Want]:
        kinds = dict.fromkeys(observer_of(method) for method in self._methods())
        kinds |= dict.fromkeys(["sample"] if self.correct_bias else [])
        sources = dict.fromkeys(linear.source for linear in self._linears(model))
        return [Want(source, kind) for source in sources for kind in kinds]

    def apply(self, model: Model, ctx: Context) -> Change:
        if self.method == "best":
            best, damages = self.best(model, ctx)
            return replace(best.apply(model, ctx), details={"methods": damages}, ran=str(best))
        (method,) = self._methods()
        writer = Int8Writer(model, self.format, reduce_range=self.reduce_range)
        linears, others = self._linears(model), stays_float(model)
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
        left = f"; float32: layers {write_option(self.float_layers)}" if self.float_layers else ""
        return Change(len(linears) + tables, note + left + others)

    def best(self, model: Model, ctx: Context) -> "tuple[QuantizeStatic, dict[str, float]]":
        """The same pass with the method of least damage, and the damage of each method."""
        choices: dict[str, QuantizeStatic] = {method: replace(self, method=method) for method in METHODS}
        compared = {name: replace(choice, embeddings=False) for name, choice in choices.items()}  # tables: all alike
        damages = method_damages(model, compared, ctx.trials, ctx.stats)
        return choices[min(METHODS, key=lambda method: damages[method])], damages

    def _linears(self, model: Model) -> list[Linear]:
        """The dense layers to quantize. Raises PassError when `float_layers` cannot be left out, or leave none."""
        if not self.float_layers:
            return dense_layers(model)
        option = f"quantize-static: float-layers={write_option(self.float_layers)}"
        check_layers(option, self.float_layers, len(model.encoder.layers))
        check_together(option, self.float_layers, model)
        layers = [model.encoder.layers[index] for index in self.float_layers]
        left = {matrix.node for layer in layers for linear in layer.linears.values() for matrix in linear.matrices}
        linears = [linear for linear in dense_layers(model) if linear.node not in left]
        if not linears:
            raise PassError(f"{option} leaves nothing to quantize")
        return linears

    def _methods(self) -> tuple[Method, ...]:
        """The range method; all of them, where the best is to be found."""
        return tuple(method for method in METHODS if self.method in (method, "best"))
