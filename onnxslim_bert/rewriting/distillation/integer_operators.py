"""The operators that make and multiply integers, in PyTorch: the numbers that ONNX Runtime computes, with gradients.

Integers are held as floats, which are exact as far as they go here; rounding passes gradients on as they are
(`parameters.rounded`). Sources: https://onnx.ai/onnx/operators and ONNX Runtime's docs/ContribOperators.md.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from onnxslim_bert.rewriting.distillation.parameters import rounded
from onnxslim_bert.rewriting.int8.blockwise import unpack_blocks, unpack_zeros

INT8_COMPUTE = 4  # the accuracy level at which MatMulNBits rounds activations to int8, block by block
LARGEST = 127


def _quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor | None = None, *, axis: int = 1, saturate: int = 1
) -> Tensor:
    zero = torch.zeros(1, dtype=torch.uint8) if zero_point is None else zero_point
    limits = torch.iinfo(zero.dtype)
    levels = rounded(x / _along(scale, x, axis)) + _along(zero, x, axis)
    return levels.clamp(limits.min, limits.max)


def _dequantize(x: Tensor, scale: Tensor, zero_point: Tensor | None = None, *, axis: int = 1) -> Tensor:
    return _centred(x, zero_point if zero_point is None else _along(zero_point, x, axis)) * _along(scale, x, axis)


def _quantize_dynamically(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = (-low / scale).detach().round().clamp(0, 255)
    return (rounded(x / scale) + zero).clamp(0, 255), scale, zero


def _multiply(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
    left = _centred(a, a_zero)
    return left @ _centred(b, b_zero).to(left.dtype)


def _multiply_to_float(
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero: Tensor | None = None,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    product = _multiply(a, b, a_zero, b_zero) * (a_scale * b_scale)
    return product if bias is None else product + bias


def _multiply_dynamically(
    a: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    levels, scale, zero = _quantize_dynamically(a)
    return _multiply_to_float(levels, b, scale, b_scale, zero, b_zero, bias)


def _multiply_blocks(
    a: Tensor,
    levels: Tensor,
    scales: Tensor,
    *others: Tensor | None,
    K: int,  # noqa: N803
    N: int,  # noqa: N803
    bits: int = 4,
    block_size: int,
    accuracy_level: int = 0,
) -> Tensor:
    zeros, *inner = others or (None,)
    if any(one is not None for one in inner):
        raise NotImplementedError("an order of blocks or a bias among its inputs")
    steps = scales.reshape(N, -1, 1)
    levels = levels if levels.is_floating_point() else torch.from_numpy(unpack_blocks(levels.numpy(), bits)).to(a.dtype)
    middle = (1 << (bits - 1)) if zeros is None else _zeros_of(zeros, steps, bits)
    weight = ((levels - middle) * steps).reshape(N, -1)[:, :K]
    return (_rounded_blocks(a, block_size) if accuracy_level == INT8_COMPUTE else a) @ weight.mT


def _zeros_of(zeros: Tensor, steps: Tensor, bits: int) -> Tensor:
    """A zero for each of `steps` [d_out, blocks, 1], from packed ones or from floats."""
    if zeros.is_floating_point():
        return zeros.reshape(steps.shape)
    unpacked = unpack_zeros(zeros.numpy(), steps.shape[0], steps.shape[1], bits)
    return torch.from_numpy(unpacked.reshape(steps.shape)).to(steps.dtype)


def _rounded_blocks(x: Tensor, block: int) -> Tensor:
    """`x` with each `block` of its last axis rounded to int8, as multiples of its largest entry's 127th part."""
    width = x.shape[-1]
    blocks = torch.nn.functional.pad(x, (0, -width % block)).unflatten(-1, (-1, block))
    steps = blocks.detach().abs().amax(-1, keepdim=True) / LARGEST
    steps = torch.where(steps == 0, torch.ones_like(steps), steps)
    return (rounded(blocks / steps) * steps).flatten(-2)[..., :width]


def _shift(x: Tensor, by: Tensor, *, direction: str) -> Tensor:
    return x << by if direction == "LEFT" else x >> by


def _centred(x: Tensor, zero: Tensor | None) -> Tensor:
    """`x` less its zero point, as floats."""
    values = x if x.is_floating_point() else x.to(torch.float32)
    return values if zero is None else values - zero.to(values.dtype)


def _along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """Scales or zero points, so shaped that they belong to the axis `axis` of `x`; one for all stays as it is."""
    if values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


INTEGER: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("", "BitShift"): _shift,
    ("", "DequantizeLinear"): _dequantize,
    ("", "DynamicQuantizeLinear"): _quantize_dynamically,
    ("", "MatMulInteger"): _multiply,
    ("", "QuantizeLinear"): _quantize,
    ("com.microsoft", "DequantizeLinear"): _dequantize,
    ("com.microsoft", "DynamicQuantizeMatMul"): _multiply_dynamically,
    ("com.microsoft", "MatMulIntegerToFloat"): _multiply_to_float,
    ("com.microsoft", "MatMulNBits"): _multiply_blocks,
    ("com.microsoft", "QuantizeLinear"): _quantize,
}
