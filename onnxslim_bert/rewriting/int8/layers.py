"""Write int8 dense layers and embedding tables into a graph."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder, is_output, redirect
from onnxslim_bert.graph.probe import MICROSOFT, constant, producer
from onnxslim_bert.model.dense import dense_layers, tables_of
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.int8.quantizers import SIGNED_LIMIT, quantize_columns, quantize_rows

Format = Literal["contrib", "qdq"]
MADE_UP = np.array(0.05, np.float32)  # a scale: between -6.4 and 6.35, as activations behind a norm mostly are
WIDE = 256  # columns from which a byte each and two nodes take less than four bytes each


class Integers:
    """Weights and tables in int8, each array rounded once for all models that share it, as the clones of one do.

    It holds the arrays that it was given, and a quarter of their bytes.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, bool, bool], tuple[Array, tuple[Array, Array]]] = {}

    def columns(self, weight: Array, *, trans_b: bool, reduce_range: bool) -> tuple[Array, Array]:
        """The weight in int8 [d_in, d_out], and its scales [d_out]; weight [d_out, d_in] where `trans_b`."""

        def rounded() -> tuple[Array, Array]:
            integers, scales = quantize_columns(weight.T if trans_b else weight, reduce_range=reduce_range)
            return np.ascontiguousarray(integers), scales

        return self._once((id(weight), trans_b, reduce_range), weight, rounded)

    def rows(self, table: Array) -> tuple[Array, Array]:
        """As `quantize_rows`."""
        return self._once((id(table), False, False), table, lambda: quantize_rows(table))

    def _once(
        self, key: tuple[int, bool, bool], values: Array, rounded: Callable[[], tuple[Array, Array]]
    ) -> tuple[Array, Array]:
        if key not in self._known:
            self._known[key] = values, rounded()  # as long as it is held, no other array has its id
        return self._known[key][1]


class Int8Writer:
    """Replaces float dense layers and tables by int8 ones. A weight that several layers share is quantized once.

    form: contrib for com.microsoft's operators, qdq for standard ones. reduce_range: keep weights so small that no two
    neighbouring products leave 16 bits (`saturation`). integers: what arrays of this model, and of others that share
    them, are in int8; None for this model alone.
    """

    def __init__(
        self, model: Model, form: Format, *, reduce_range: bool = False, integers: Integers | None = None
    ) -> None:
        self.graph = model.graph
        self.form = form
        self.reduce_range = reduce_range
        self.integers = integers or Integers()
        self.tensors = model.graph.tensors()
        self.build = Builder(model.graph, "int8")
        self.weights: dict[tuple[str, bool], tuple[gs.Constant, gs.Constant]] = {}
        self.inputs: dict[str, tuple[gs.Tensor, gs.Tensor, gs.Tensor]] = {}

    def static(self, linear: Linear, scale: Array, zero_point: Array, correction: Array | None = None) -> None:
        """Let `linear` multiply its input, quantized with a fixed scale and zero point, in int8; its output is float.

        scale: float32; zero_point: uint8; one value each. correction [d_out]: added to the bias.
        """
        if linear.source not in self.inputs:
            constants = [self.build.constant(n, v) for n, v in (("scale", scale), ("zero_point", zero_point))]
            source = _before_clip(self.tensors[linear.source], scale, zero_point)
            quantized = self.build.node("QuantizeLinear", f"{linear.source}/quantized", [source, *constants])
            self.inputs[linear.source] = (quantized, constants[0], constants[1])
        self._write(linear, *self.inputs[linear.source], correction)

    def dynamic(self, linear: Linear, correction: Array | None = None) -> None:
        """Let `linear` multiply in int8, with the range that its input has at run time; its output is float.

        correction [d_out]: added to the bias.
        """
        if linear.source not in self.inputs:
            source = self.tensors[linear.source]
            self.inputs[linear.source] = tuple(
                self.build.nodes("DynamicQuantizeLinear", f"{linear.source}/quantized", [source], 3)
            )
        self._write(linear, *self.inputs[linear.source], correction)

    def _write(
        self,
        linear: Linear,
        quantized: gs.Tensor,
        scale: gs.Tensor,
        zero_point: gs.Tensor,
        correction: Array | None = None,
    ) -> None:
        weight, scales = self.weight(linear)
        bias = self.tensors[linear.bias] if linear.bias else None
        if correction is not None:
            old = bias.values if bias is not None else np.float32(0)
            name = f"{linear.node}/bias"
            if self.form == "contrib" and linear.d_out >= WIDE and not np.any(old):
                bias = self._narrow(name, correction)
            else:
                bias = self.build.constant(name, (old + correction).astype(np.float32))
        name = f"{linear.node}/int8"
        if self.form == "contrib":
            operands = [quantized, weight, scale, scales, zero_point, None, bias]
            result = self.build.node("MatMulIntegerToFloat", name, operands, MICROSOFT)
        else:
            restored = self.build.once("DequantizeLinear", f"{quantized.name}/restored", [quantized, scale, zero_point])
            columns = self.build.node("DequantizeLinear", f"{linear.node}/weight", [weight, scales], axis=1)
            result = self.build.node("MatMul", name, [restored, columns])
            # an Add here would be fused into a float Gemm that dequantizes its weight at every run; a Sum is not
            result = result if bias is None else self.build.node("Sum", f"{linear.node}/biased", [result, bias])
        old = self.tensors[linear.result]
        redirect(self.graph, old, result)
        # a layer that reads this one directly, as ALBERT's first do, must not read its float result
        self.tensors[linear.result] = old if is_output(self.graph, old) else result

    def _narrow(self, name: str, correction: Array) -> gs.Tensor | None:
        """A correction by itself, stored in a byte a column; ONNX Runtime computes it when a session is made."""
        if not np.any(correction):
            return None
        step = np.float32(np.abs(correction).max() / SIGNED_LIMIT)
        stored = self.build.constant(f"{name}/int8", np.rint(correction / step).astype(np.int8))
        wide = self.build.node("Cast", f"{name}/float", [stored], to=onnx.TensorProto.FLOAT)
        return self.build.node("Mul", name, [wide, self.build.constant(f"{name}/scale", np.array(step))])

    def read(self, source: str) -> str:
        """The name that the tensor `source`, which is quantized by now, has in the graph as it is now."""
        quantizer = producer(self.inputs[source][0])
        assert quantizer is not None
        return str(quantizer.inputs[0].name)

    def weight(self, linear: Linear) -> tuple[gs.Constant, gs.Constant]:
        """The weight of `linear` in int8 [d_in, d_out], and its scales [d_out]; of one that is shared, the same two."""
        key = (linear.weight, linear.trans_b)
        if key not in self.weights:
            quantized, scales = self.integers.columns(
                self.tensors[linear.weight].values, trans_b=linear.trans_b, reduce_range=self.reduce_range
            )
            self.weights[key] = (
                self.build.constant(f"{linear.weight}/int8", quantized),
                self.build.constant(f"{linear.weight}/scales", scales),
            )
        return self.weights[key]

    def table(self, name: str) -> int:
        """Store the embedding table `name` as int8 with one scale a row; return how many lookups were rewritten."""
        table = self.tensors[name]
        lookups = [node for node in table.outputs if node.op in ("Gather", "Slice") and node.inputs[0] is table]
        if not lookups or constant(table) is None:
            return 0
        rows, scales = (
            self.build.constant(f"{name}/{part}", values)
            for part, values in zip(("int8", "scales"), self.integers.rows(table.values), strict=True)
        )
        for node in lookups:
            rest = list(node.inputs[1:])
            looked_up = [
                self.build.node(node.op, f"{node.name}/{part}", [source, *rest], **node.attrs)
                for part, source in (("int8", rows), ("scales", scales))
            ]
            values = self.build.node("Cast", f"{node.name}/float", [looked_up[0]], to=onnx.TensorProto.FLOAT)
            redirect(self.graph, node.outputs[0], self.build.node("Mul", f"{node.name}/scaled", [values, looked_up[1]]))
        return len(lookups)


def _before_clip(source: gs.Tensor, scale: Array, zero_point: Array) -> gs.Tensor:
    """The tensor before the Clip that computes `source`, where quantizing makes that Clip needless; else `source`.

    It is needless when the quantizer's own range ends inside the clip's, within half a step.
    """
    clip = producer(source)
    if clip is None or clip.op != "Clip":
        return source
    low, high = (float(constant(tensor)) for tensor in clip.inputs[1:3])  # type: ignore[arg-type]
    lowest, highest = ((level - float(zero_point)) * float(scale) for level in (0, 255))
    half = float(scale) / 2
    return clip.inputs[0] if low <= lowest + half and highest - half <= high else source


def write_dynamic(
    model: Model,
    form: Format,
    *,
    embeddings: bool = True,
    reduce_range: bool = False,
    integers: Integers | None = None,
) -> tuple[int, int]:
    """Quantize every dense layer with ranges found at run time, and the tables; return how many of each.

    integers: as in `Int8Writer`.
    """
    writer = Int8Writer(model, form, reduce_range=reduce_range, integers=integers)
    linears = dense_layers(model)
    for linear in linears:
        writer.dynamic(linear)
    tables = quantize_tables(model, writer) if embeddings else 0
    model.changed()
    return len(linears), tables


def write_stand_in(model: Model) -> None:
    """Quantize every dense layer and the tables with one made-up range for all: its answers are nonsense.

    It runs as fast as with calibrated ranges, so that times can be known before there are texts.
    """
    writer = Int8Writer(model, "contrib")
    for linear in dense_layers(model):
        writer.static(linear, MADE_UP, np.array(128, np.uint8))
    quantize_tables(model, writer)
    model.changed()


def quantize_tables(model: Model, writer: Int8Writer) -> int:
    """Quantize the float embedding tables; return how many were quantized."""
    return sum(1 for name in tables_of(model) if model.array(name).dtype.kind == "f" and writer.table(name))
