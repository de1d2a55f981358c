"""Write multi-head attention into a graph."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import MICROSOFT, float_type, producer

Style = Literal["contrib", "standard"]
HIDDEN = -10000.0  # added to the scores of masked keys; their weight underflows to zero


def emit_attention(
    build: Builder,
    style: Style,
    roles: Sequence[gs.Tensor],
    width: int,
    heads: int,
    scale: float,
    mask: gs.Tensor | None,
    bias: gs.Tensor | None = None,
) -> gs.Tensor:
    """Attention over `roles` (query [batch, length, width], key and value [batch, seq, width]) in `heads` heads.

    mask: [batch, seq], zero where a key is hidden. bias: [batch or 1, heads or 1, length, seq], added to the scores.
    Returns [batch, length, width].
    """
    return (_contrib if style == "contrib" else _standard)(build, roles, width, heads, scale, mask, bias)


def attention_style(context: gs.Tensor) -> Style:
    """How the attention that gives `context` is written: "contrib" as MultiHeadAttention, else "standard"."""
    above = producer(context)
    return "contrib" if above is not None and above.op == "MultiHeadAttention" else "standard"


def _contrib(
    build: Builder,
    roles: Sequence[gs.Tensor],
    _: int,
    heads: int,
    scale: float,
    mask: gs.Tensor | None,
    bias: gs.Tensor | None,
) -> gs.Tensor:
    visible = None if mask is None else build.once("Cast", f"{mask.name}/visible", [mask], to=onnx.TensorProto.INT32)
    inputs = [*roles, None, visible] if bias is None else [*roles, None, visible, bias]
    return build.node("MultiHeadAttention", "context", inputs, MICROSOFT, num_heads=heads, scale=scale)


def _standard(
    build: Builder,
    roles: Sequence[gs.Tensor],
    width: int,
    heads: int,
    scale: float,
    mask: gs.Tensor | None,
    bias: gs.Tensor | None,
) -> gs.Tensor:
    head_dim = width // heads
    apart = build.constant("apart", np.array([0, 0, -1, head_dim], np.int64))
    together = build.constant("together", np.array([0, 0, -1], np.int64))
    query, key, value = (
        build.node("Transpose", name, [build.node("Reshape", name, [tensor, apart])], perm=perm)
        for name, tensor, perm in zip(
            ("query", "key", "value"), roles, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True
        )
    )
    dtype = float_type(roles[0])
    scaled = build.node("Mul", "scaled", [query, build.constant("scale", np.array(scale, dtype))])
    scores = build.node("MatMul", "scores", [scaled, key])
    if mask is not None:
        scores = build.node("Add", "masked", [scores, mask_bias(build, mask, dtype)])
    if bias is not None:
        scores = build.node("Add", "biased", [scores, bias])
    weights = build.node("Softmax", "weights", [scores], axis=-1)
    mixed = build.node("Transpose", "mixed", [build.node("MatMul", "mixed", [weights, value])], perm=[0, 2, 1, 3])
    return build.node("Reshape", "context", [mixed, together])


def mask_bias(build: Builder, mask: gs.Tensor, dtype: np.dtype[Any]) -> gs.Tensor:
    """[batch, seq] mask -> [batch, 1, 1, seq], 0 for visible keys and HIDDEN for the others; one for all layers."""
    name = mask.name if dtype == np.float32 else f"{mask.name}/{dtype}"
    to = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    visible = build.once("Cast", f"{name}/float", [mask], to=to)
    hidden = build.once("Sub", f"{name}/hidden", [build.constant("one", np.array(1, dtype)), visible])
    bias = build.once("Mul", f"{name}/bias", [hidden, build.constant("low", np.array(HIDDEN, dtype))])
    return build.once("Unsqueeze", f"{name}/bias4", [bias, build.constant("axes", np.array([1, 2], np.int64))])
