"""Write pairs of QuantizeLinear and DequantizeLinear into a graph, with given scales and zero points."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import MICROSOFT
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.int8.quantizers import SIGNED_LIMIT, column_scales

FIRST_WITH_16_BITS = 21  # the opset whose QuantizeLinear takes uint16; ONNX Runtime's own takes it with any


@dataclass(frozen=True)
class Quantizer:
    """How real numbers are written as integer levels: real = scale * (level - zero_point).

    scale: float32, one value, or one for each channel along `axis`. zero_point: shaped like it, of the levels' type.
    """

    scale: Array
    zero_point: Array
    axis: int | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the levels."""
        return self.zero_point.dtype

    def levels(self, values: Array) -> Array:
        """`values`, of any shape that has `axis`, rounded to levels; those outside of the range become its ends."""
        shape = [-1 if axis == self.axis else 1 for axis in range(values.ndim)] if self.axis is not None else ()
        limits = np.iinfo(self.dtype)
        rounded = np.rint(values / self.scale.reshape(shape)) + self.zero_point.reshape(shape).astype(np.float64)
        levels: Array = np.clip(rounded, limits.min, limits.max).astype(self.dtype)
        return levels


def spanning(low: float, high: float, dtype: type[np.unsignedinteger]) -> Quantizer:
    """The quantizer of type `dtype` whose levels span [low, high] and zero; zero itself is exact."""
    low, high, most = min(low, 0.0), max(high, 0.0), int(np.iinfo(dtype).max)
    scale = np.float32((high - low) / most) or np.float32(1)
    return Quantizer(np.array(scale), np.array(np.clip(np.rint(-low / scale), 0, most), dtype))


def dividing(low: float, high: float, dtype: type[np.unsignedinteger]) -> Quantizer:
    """The quantizer that divides [low, high) into 2**bits equal steps, so that `high` itself is no level.

    QNN wants this after Tanh and Sigmoid. Example: [0, 1) in uint8 has the scale 1/256, not 1/255.
    """
    step = (high - low) / (int(np.iinfo(dtype).max) + 1)
    return Quantizer(np.array(step, np.float32), np.array(-low / step, dtype))


def around_zero(largest: float) -> Quantizer:
    """The int8 quantizer for values in [-largest, largest]."""
    return Quantizer(np.array(largest / SIGNED_LIMIT, np.float32), np.array(0, np.int8))


def per_output(weight: Array, axis: int) -> Quantizer:
    """The int8 quantizer of a matrix with a scale for each of its outputs, which lie along `axis`: scale [outputs].

    axis: 1 for a weight [d_in, d_out], 0 for [d_out, d_in].
    """
    scales = column_scales(weight if axis == 1 else weight.T)
    return Quantizer(scales, np.zeros(len(scales), np.int8), axis)


def of_bias(source: Quantizer, weight: Quantizer) -> Quantizer:
    """The int32 quantizer of a bias; its scale is source.scale * weight.scale, the step of the sums it is added to."""
    scales = (source.scale * weight.scale).astype(np.float32)
    return Quantizer(scales, np.zeros(len(scales), np.int32), 0)


class QdqWriter:
    """Puts pairs of QuantizeLinear and DequantizeLinear into a graph; a constant is stored once for each quantizer."""

    def __init__(self, model: Model) -> None:
        self.build = Builder(model.graph, "")
        self.domain = "" if model.graph.opset >= FIRST_WITH_16_BITS else MICROSOFT
        self.stored: dict[tuple[str, bytes, np.dtype[Any]], gs.Tensor] = {}

    def variable(self, tensor: gs.Tensor, quantizer: Quantizer) -> None:
        """Quantize `tensor`, the output of a node: all its readers get the rounded values, under the same name."""
        node, exact = tensor.inputs[0], gs.Variable(f"{tensor.name}/exact")
        node.outputs[next(i for i, output in enumerate(node.outputs) if output is tensor)] = exact
        self._rounded(tensor.name, exact, quantizer).inputs[0].outputs[0] = tensor

    def converted(self, tensor: gs.Tensor, readers: Collection[gs.Node], quantizer: Quantizer) -> None:
        """Give `readers` the values of `tensor` rounded once more, to the levels of another quantizer."""
        other = self._rounded(f"{tensor.name}/{quantizer.dtype}", tensor, quantizer)
        for node in readers:
            for position, read in enumerate(node.inputs):
                if read is tensor:
                    node.inputs[position] = other

    def constant(self, node: gs.Node, position: int, quantizer: Quantizer) -> None:
        """Store the constant that `node` reads at input `position` as levels, with a DequantizeLinear."""
        tensor = node.inputs[position]
        key = (tensor.name, quantizer.scale.tobytes(), quantizer.dtype)
        if key not in self.stored:
            levels = self.build.constant(f"{tensor.name}/levels", quantizer.levels(tensor.values))
            axis = {} if quantizer.axis is None else {"axis": quantizer.axis}
            operands = [levels, *self._constants(tensor.name, quantizer)]
            self.stored[key] = self.build.node(
                "DequantizeLinear", f"{tensor.name}/restored", operands, self.domain, **axis
            )
        node.inputs[position] = self.stored[key]

    def _rounded(self, name: str, tensor: gs.Tensor, quantizer: Quantizer) -> gs.Tensor:
        constants = self._constants(name, quantizer)
        levels = self.build.node("QuantizeLinear", f"{name}/levels", [tensor, *constants], self.domain)
        return self.build.node("DequantizeLinear", f"{name}/restored", [levels, *constants], self.domain)

    def _constants(self, name: str, quantizer: Quantizer) -> list[gs.Tensor | None]:
        parts = (("scale", quantizer.scale), ("zero_point", quantizer.zero_point))
        return [self.build.constant(f"{name}/{part}", values) for part, values in parts]
