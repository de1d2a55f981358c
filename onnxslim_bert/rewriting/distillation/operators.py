"""What each operator of an encoder graph computes, in PyTorch.

A function takes the node's inputs in order, None where one is left out, and its attributes by name; what it does not
name it does not know. Sources: https://onnx.ai/onnx/operators and ONNX Runtime's docs/ContribOperators.md.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxslim_bert.graph.probe import MICROSOFT
from onnxslim_bert.rewriting.distillation.attention import attention, multi_head_attention, rotary_embedding
from onnxslim_bert.rewriting.distillation.integer_operators import INTEGER
from onnxslim_bert.rewriting.distillation.recurrent import lstm
from onnxslim_bert.rewriting.distillation.shaping import SHAPING

Operator = Callable[..., Any]


def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Tensor:
    product = _fused_product(a, b, alpha=alpha, transA=transA, transB=transB)
    return product if c is None else product + beta * c


def _fused_product(a: Tensor, b: Tensor, *, alpha: float = 1.0, transA: int = 0, transB: int = 0) -> Tensor:  # noqa: N803
    product = (a.mT if transA else a) @ (b.mT if transB else b)
    return product if alpha == 1 else product * alpha


def _layer_norm(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    shape = x.shape[axis:]
    bias = None if bias is None else bias.expand(shape)
    return functional.layer_norm(x, shape, scale.expand(shape), bias, epsilon)


def _add(a: Tensor, b: Tensor) -> Tensor:
    """A bias takes the type of the products that it is added to, which may be bfloat16."""
    if a.is_floating_point() and a.dtype != b.dtype and 1 in (a.ndim, b.ndim):
        a, b = (a.to(b.dtype), b) if a.ndim < b.ndim else (a, b.to(a.dtype))
    return a + b


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return functional.gelu(x, approximate=approximate)


def _fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


def _quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    return x * torch.sigmoid(alpha * x)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _reduction(function: Callable[..., Tensor]) -> Operator:
    """One of ONNX's reductions, whose axes are an input since opset 13 or 18 and an attribute before."""

    def reduced(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
        named = () if axes is None else tuple(axes.tolist())
        if not named and noop_with_empty_axes:
            return x
        return function(x, named or tuple(range(x.ndim)), keepdim=bool(keepdims))

    return reduced


def _arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    if select_last_index:
        return x.shape[axis] - 1 - x.flip(axis).argmax(axis, bool(keepdims))
    return x.argmax(axis, bool(keepdims))


def _top_k(x: Tensor, k: Tensor, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:
    values, places = x.sort(
        stable=True, dim=axis, descending=bool(largest)
    )  # of equal values the first, as ONNX has it
    return values.narrow(axis, 0, int(k)), places.narrow(axis, 0, int(k))


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kernel_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
    dilations: Sequence[int] = (),
    group: int = 1,
) -> Tensor:
    axes = x.ndim - 2
    widths = [pads[axis + side * axes] for axis in reversed(range(axes)) for side in (0, 1)] if pads else []
    convolved = {1: functional.conv1d, 2: functional.conv2d}[axes]
    ones = [1] * axes
    x = functional.pad(x, widths) if any(widths) else x
    return convolved(x, weight, bias, stride=[*strides] or ones, dilation=[*dilations] or ones, groups=group)


def _any_number(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda *inputs: reduce(function, inputs)


def _power(x: Tensor, exponent: Tensor) -> Tensor:
    return torch.pow(x, exponent).to(x.dtype)


def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


def _log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.log_softmax(x, axis)


def _norm(order: int) -> Callable[..., Tensor]:
    return lambda x, axes, keepdim: torch.linalg.vector_norm(x, order, axes, keepdim)


def _normalize(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    return functional.normalize(x, p, axis)


def _sum_of_squares(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    return x.square().sum(axes, keepdim)


def _leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return functional.leaky_relu(x, alpha)


def _elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.elu(x, alpha)


OPERATORS: Mapping[tuple[str, str], Operator] = {
    **{("", name): function for name, function in SHAPING.items()},
    **INTEGER,
    ("", "Abs"): torch.abs,
    ("", "Add"): _add,
    ("", "And"): torch.logical_and,
    ("", "ArgMax"): _arg_max,
    ("", "Attention"): attention,
    ("", "Ceil"): torch.ceil,
    ("", "Clip"): _clip,
    ("", "Conv"): _convolution,
    ("", "Cos"): torch.cos,
    ("", "Div"): _divide,
    ("", "Elu"): _elu,
    ("", "Equal"): torch.eq,
    ("", "Erf"): torch.erf,
    ("", "Exp"): torch.exp,
    ("", "Floor"): torch.floor,
    ("", "Gelu"): _gelu,
    ("", "Gemm"): _gemm,
    ("", "Greater"): torch.gt,
    ("", "GreaterOrEqual"): torch.ge,
    ("", "IsNaN"): torch.isnan,
    ("", "LSTM"): lstm,
    ("", "LayerNormalization"): _layer_norm,
    ("", "LeakyRelu"): _leaky_relu,
    ("", "Less"): torch.lt,
    ("", "LessOrEqual"): torch.le,
    ("", "Log"): torch.log,
    ("", "LogSoftmax"): _log_softmax,
    ("", "LpNormalization"): _normalize,
    ("", "MatMul"): torch.matmul,
    ("", "Max"): _any_number(torch.maximum),
    ("", "Min"): _any_number(torch.minimum),
    ("", "Mul"): operator.mul,
    ("", "Neg"): torch.neg,
    ("", "Not"): torch.logical_not,
    ("", "Or"): torch.logical_or,
    ("", "Pow"): _power,
    ("", "Reciprocal"): torch.reciprocal,
    ("", "ReduceL1"): _reduction(_norm(1)),
    ("", "ReduceL2"): _reduction(_norm(2)),
    ("", "ReduceLogSumExp"): _reduction(torch.logsumexp),
    ("", "ReduceMax"): _reduction(torch.amax),
    ("", "ReduceMean"): _reduction(torch.mean),
    ("", "ReduceMin"): _reduction(torch.amin),
    ("", "ReduceSum"): _reduction(torch.sum),
    ("", "ReduceSumSquare"): _reduction(_sum_of_squares),
    ("", "Relu"): torch.relu,
    ("", "Sigmoid"): torch.sigmoid,
    ("", "Sign"): torch.sign,
    ("", "Sin"): torch.sin,
    ("", "Softmax"): _softmax,
    ("", "Softplus"): functional.softplus,
    ("", "Sqrt"): torch.sqrt,
    ("", "Sub"): operator.sub,
    ("", "Sum"): _any_number(torch.add),
    ("", "Tanh"): torch.tanh,
    ("", "TopK"): _top_k,
    (MICROSOFT, "FastGelu"): _fast_gelu,
    (MICROSOFT, "FusedMatMul"): _fused_product,
    (MICROSOFT, "Gelu"): _gelu,
    (MICROSOFT, "MultiHeadAttention"): multi_head_attention,
    (MICROSOFT, "QuickGelu"): _quick_gelu,
    (MICROSOFT, "RotaryEmbedding"): rotary_embedding,
}
