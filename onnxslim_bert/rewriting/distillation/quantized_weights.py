"""Which constants of a quantized graph are integers and scales that training may move."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx_graphsurgeon as gs
import torch

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.distillation.parameters import Integers, Packed, Scale, Trained
from onnxslim_bert.rewriting.int8.blockwise import unpack_zeros

Make = Callable[[torch.dtype], Trained]
"""Makes the trained form of a constant."""

# the inputs of a product that hold its integers, their scales, and the scale of its activations
PRODUCTS = {"MatMulIntegerToFloat": (1, 3, 2), "DynamicQuantizeMatMul": (1, 2, None), "MatMulNBits": (1, 2, None)}


def quantized_weights(model: Model) -> dict[str, Make]:
    """How to train each matrix of integers and each scale of the dense layers of `model`, by its name.

    Empty where the model multiplies no integers. Tables, also quantized ones, are none of these.
    """
    found: dict[str, Make] = {}
    for node in model.graph.nodes:
        for name, make in _of_node(node):
            found.setdefault(name, make)
    return found


def _of_node(node: gs.Node) -> Iterator[tuple[str, Make]]:
    if node.op in PRODUCTS:
        matrix, scales, activations = PRODUCTS[node.op]
        levels, steps = constant(node.inputs[matrix]), constant(node.inputs[scales])
        if levels is not None and steps is not None:
            yield node.inputs[matrix].name, _integers(levels, steps, node)
            yield node.inputs[scales].name, _scale(steps)
        if activations is not None and (scale := constant(node.inputs[activations])) is not None:
            yield node.inputs[activations].name, _scale(scale)
    elif node.op in ("QuantizeLinear", "DequantizeLinear"):
        levels, scale = constant(node.inputs[0]), constant(node.inputs[1])
        is_matrix = levels is not None and levels.ndim > 1
        if is_matrix and _is_lookup_only(node):
            return
        if is_matrix and levels is not None and scale is not None:
            yield node.inputs[0].name, _integers(levels, scale, node)
        if scale is not None and (levels is None or is_matrix):
            yield node.inputs[1].name, _scale(scale)


def _zeros(node: gs.Node, shape: tuple[int, ...], bits: int) -> Array:
    """The zeros of the blocks of a MatMulNBits, [d_out, blocks]: the middle level where it names none."""
    given = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if given is None:
        return np.full(shape, 1 << (bits - 1), np.uint8)
    return given.reshape(shape) if given.dtype.kind == "f" else unpack_zeros(given, shape[0], shape[1], bits)


def _is_lookup_only(node: gs.Node) -> bool:
    """Whether only lookups read the table that `node` restores."""
    return all(reader.op == "Gather" for reader in node.outputs[0].outputs)


def _scale(values: Array) -> Make:
    return lambda dtype: Scale(values, dtype)


def _integers(levels: Array, steps: Array, node: gs.Node) -> Make:
    if node.op == "MatMulNBits":
        by_block, bits = steps.reshape(len(levels), -1), int(node.attrs.get("bits", 4))
        zeros = _zeros(node, by_block.shape, bits)
        return lambda dtype: Packed(levels, by_block, zeros, bits, dtype)
    axis = int(node.attrs.get("axis", 1)) if node.op == "DequantizeLinear" else -1
    shape = [1] * levels.ndim
    if steps.size > 1:
        shape[axis] = steps.size
    spread = np.broadcast_to(steps.reshape(shape), levels.shape)
    return lambda dtype: Integers(levels, spread, dtype)
