"""The fused attention operators in PyTorch: ONNX Runtime's and that of opset 23."""

import torch
from torch import Tensor
from torch.nn import functional


def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    score_bias: Tensor | None = None,
    *,
    num_heads: int,
    scale: float = 0.0,
    mask_filter_value: float = -10000.0,
) -> Tensor:
    """com.microsoft's: query [batch, length, width], key and value [batch, seq, width] -> [batch, length, width].

    bias: of query, key and value, one behind the other. mask: as `_visible` takes it.
    """
    if bias is not None:
        parts = bias.split([query.shape[-1], key.shape[-1], value.shape[-1]])
        query, key, value = (x + part.to(x.dtype) for x, part in zip((query, key, value), parts, strict=True))
    query, key, value = (_apart(x, num_heads) for x in (query, key, value))
    added = score_bias
    if mask is not None:
        hidden = ~_visible(mask, key.shape[2])[:, None, None] * mask_filter_value
        added = hidden if added is None else added + hidden
    return _mixed(query, key, value, added, scale or None).transpose(1, 2).flatten(2)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float | None = None,
    q_num_heads: int = 0,
    kv_num_heads: int = 0,
    is_causal: int = 0,
    softcap: float = 0.0,
    qk_matmul_output_mode: int = 0,
) -> Tensor:
    """Opset 23's: query, key and value [batch, heads, seq, head_dim], or [batch, seq, width] with numbers of heads.

    mask: added to the scores, or False where a key is hidden. qk_matmul_output_mode: of an output that is not given.
    """
    if is_causal or softcap:
        raise NotImplementedError(f"is_causal={is_causal}, softcap={softcap}")
    if whole := query.ndim == 3:
        query, key, value = _apart(query, q_num_heads), _apart(key, kv_num_heads), _apart(value, kv_num_heads)
    mixed = _mixed(query, key, value, mask, scale)
    return mixed.transpose(1, 2).flatten(2) if whole else mixed


def rotary_embedding(
    x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor, *, num_heads: int = 0, interleaved: int = 0
) -> Tensor:
    """com.microsoft's: x [batch, seq, width], cos and sin [positions, head_dim / 2] -> x turned.

    positions: [1], that of the first token.
    """
    if interleaved or not num_heads or positions.numel() != 1:
        raise NotImplementedError(f"interleaved={interleaved}, num_heads={num_heads}, {positions.numel()} positions")
    rows = slice(int(positions), int(positions) + x.shape[1])
    c, s = (angles[rows, None].to(x.dtype) for angles in (cos, sin))
    first, second = x.unflatten(-1, (num_heads, -1)).chunk(2, -1)
    return torch.cat([first * c - second * s, second * c + first * s], -1).flatten(2)


def _mixed(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """softmax(query key^T * scale + mask) value; [batch, heads, seq, head_dim] each, key and value with fewer heads."""
    # in bfloat16 the gradient of PyTorch's kernel takes up to twenty times as long
    query, key, value = (x.float() if x.dtype == torch.bfloat16 else x for x in (query, key, value))
    mask = mask if mask is None or mask.dtype == torch.bool else mask.to(query.dtype)
    grouped = query.shape[1] != key.shape[1]
    with torch.autocast("cpu", enabled=False):
        return functional.scaled_dot_product_attention(query, key, value, mask, scale=scale, enable_gqa=grouped)


def _apart(x: Tensor, heads: int) -> Tensor:
    """[batch, seq, width] -> [batch, heads, seq, head_dim]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _visible(mask: Tensor, seq: int) -> Tensor:
    """mask [batch, seq], zero where a key is hidden, or [batch], how many keys are real -> bool [batch, seq]."""
    if mask.ndim == 2:
        return mask != 0
    if mask.ndim != 1:
        raise NotImplementedError(f"a mask of {mask.ndim} axes")
    return torch.arange(seq) < mask[:, None]
