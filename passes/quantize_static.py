"""int8 weights, and activations quantized with ranges that calibration found."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.calibration.ranges import METHODS, Method, observer_of, quantizer_range
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.dense import dense_layers, stays_float
from onnxslim_bert.model.layer_sets import check_layers, check_together
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.int8.best_method import method_errors
from onnxslim_bert.rewriting.int8.layers import Format, Int8Writer, Integers, quantize_tables, write_dynamic
from onnxslim_bert.rewriting.int8.quantizers import Quantizer, activation_quantizer, mean_rounding
from onnxslim_bert.rewriting.int8.run_time import RunTime, choose_run_time, excess
from onnxslim_bert.rewriting.options import check_each_once, dashed, write_option
from onnxslim_bert.wording import plural

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
    ranges: calibrated, those that calibration found; best measures whether these are as good as ranges found at run
        time on rows held back and made harder (unusual ids, short, as long as fits). Where they are not, as many inputs
        as it takes get theirs at run time.
    run_time: the inputs whose range is found at run time, as 3/7, numbered from 0 in the order in which the layers to
        quantize read them.

    Jacob et al. 2018, https://arxiv.org/abs/1712.05877
    """

    name: ClassVar[str] = "quantize-static"
    method: Choice = "minmax"
    format: Format = "contrib"
    correct_bias: bool = True
    embeddings: bool = True
    reduce_range: bool = False
    float_layers: tuple[int, ...] = ()
    ranges: Literal["calibrated", "best"] = "calibrated"
    run_time: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_each_once(self.name, "float_layers", self.float_layers)
        check_each_once(self.name, "run_time", self.run_time, "an input")
        if self.ranges == "best" and self.run_time:
            raise PassError(f"{self.name}: ranges=best finds run-time itself; leave one of them out")

    @property
    def measures(self) -> bool:
        return "best" in (self.method, self.ranges)

    def wants(self, model: Model) -> Iterable[Want]:
        kinds = dict.fromkeys(observer_of(method) for method in self._methods())
        sources = dict.fromkeys(linear.source for linear in self._linears(model))
        wants = [Want(source, kind, hard=True) for source in sources for kind in kinds]
        return wants + [Want(source, "sample") for source in sources] * self.correct_bias

    def apply(self, model: Model, ctx: Context) -> Change:
        if self.measures:
            return self._measured(model, ctx)
        return self._write(model, ctx, Integers())[0]

    def _write(self, model: Model, ctx: Context, integers: Integers) -> tuple[Change, Int8Writer]:
        """Apply the pass, which measures nothing. integers: what weights and tables are in int8."""
        (method,) = self._methods()
        writer = Int8Writer(model, self.format, reduce_range=self.reduce_range, integers=integers)
        linears, others = self._linears(model), stays_float(model)
        inputs = list(dict.fromkeys(linear.source for linear in linears))
        if max(self.run_time, default=0) >= len(inputs):
            last = f"the last input has number {len(inputs) - 1}"
            raise PassError(f"{self.name}: run-time={write_option(self.run_time)}, but {last}")
        later = {inputs[number] for number in self.run_time}
        quantizers = {source: self._quantizer(source, method, ctx) for source in inputs if source not in later}
        for linear in linears:
            scale, zero_point = quantizers.get(linear.source, (None, None))
            correction = None
            if self.correct_bias:
                rows = ctx.stats[Want(linear.source, "sample")]
                weight = model.array(linear.weight)
                matrix = weight.T if linear.trans_b else weight
                levels, scales = (constant.values for constant in writer.weight(linear))
                correction = mean_rounding(rows, matrix, (levels, scales), scale, zero_point)
            if scale is None or zero_point is None:
                writer.dynamic(linear, correction)
            else:
                writer.static(linear, scale, zero_point, correction)
        tables = quantize_tables(model, writer) if self.embeddings else 0
        model.changed()
        note = f"{plural(len(linears), 'dense layer')} ({method}) and {plural(tables, 'embedding table')} in int8"
        if later:
            note += f", {len(later)} of {len(inputs)} inputs with ranges found at run time"
        left = f"; float32: layers {write_option(self.float_layers)}" if self.float_layers else ""
        return Change(len(linears) + tables, note + left + others), writer

    def _measured(self, model: Model, ctx: Context) -> Change:
        """Apply the pass with what measures best in place of `best`."""
        best, details, why = replace(self, ranges="calibrated"), dict[str, Any](), ""
        integers, errors = Integers(), None
        if self.method == "best":
            best, found = best._best(model, ctx, integers)
            details["methods"], errors = _means(found), found[best.method]
        if self.ranges == "best":
            choice = best._choose_run_time(model, ctx, integers, errors)
            best, details["ranges"] = replace(best, run_time=choice.inputs), asdict(choice)
            why = f"; {choice}"
            if not choice.as_good:
                names = ("format", "embeddings", "reduce_range")
                options = ",".join(f"{dashed(name)}={write_option(getattr(self, name))}" for name in names)
                details["instead"] = f"quantize-dynamic{{{options}}}"
        change, _ = best._write(model, ctx, integers)
        return replace(change, note=change.note + why, details=details, ran=str(best))

    def _choose_run_time(self, model: Model, ctx: Context, integers: Integers, fixed: Array | None) -> RunTime:
        """Which inputs should have their range found at run time; `model` is not changed.

        fixed: the errors of rows with none of them (`Trials.row_errors`); None where they were not measured.
        """
        (method,) = self._methods()
        sources = list(dict.fromkeys(linear.source for linear in self._linears(model)))

        def written(inputs: tuple[int, ...]) -> tuple[Model, Int8Writer]:
            quantized = model.clone()
            return quantized, replace(self, run_time=inputs)._write(quantized, ctx, integers)[1]

        @cache
        def order() -> list[int]:
            free, writer = written(tuple(range(len(sources))))
            ranges = {writer.read(source): self._quantizer(source, method, ctx) for source in sources}
            gains = list(excess(free, ranges, ctx.trials).values())
            return sorted(range(len(sources)), key=lambda number: -gains[number])

        def dynamic() -> Model:
            quantized = ctx.trials.original.clone()
            options = {"embeddings": self.embeddings, "reduce_range": self.reduce_range}
            write_dynamic(quantized, self.format, **options, integers=integers)
            return quantized

        return choose_run_time(len(sources), order, lambda inputs: written(inputs)[0], dynamic, ctx.trials, fixed)

    def _quantizer(self, source: str, method: Method, ctx: Context) -> Quantizer:
        """The scale and the zero point of what the layers that read `source` multiply."""
        spanned = quantizer_range(method, ctx.stats[Want(source, observer_of(method), hard=True)])
        return activation_quantizer(spanned.low, spanned.high)

    def best(self, model: Model, ctx: Context) -> "tuple[QuantizeStatic, dict[str, float]]":
        """The same pass with the method of least damage, and the damage of each method."""
        best, errors = self._best(model, ctx, Integers())
        return best, _means(errors)

    def _best(self, model: Model, ctx: Context, integers: Integers) -> "tuple[QuantizeStatic, dict[str, Array]]":
        """As `best`, with the errors of rows in place of damage."""
        choices: dict[str, QuantizeStatic] = {method: replace(self, method=method) for method in METHODS}

        def made(name: str) -> Model:
            quantized = model.clone()
            choices[name]._write(quantized, ctx, integers)
            return quantized

        errors = method_errors(model, {name: str(choice) for name, choice in choices.items()}, made, ctx.trials)
        return choices[min(METHODS, key=lambda method: errors[method].mean())], errors

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


def _means(errors: Mapping[str, Array]) -> dict[str, float]:
    """How far each method moves the outputs, as `Trials.error_a_row` says; errors: of rows."""
    return {name: float(np.sqrt(rows.mean())) for name, rows in errors.items()}
