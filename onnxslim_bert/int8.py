"""8-bit quantization of arrays."""

import numpy as np

from onnxslim_bert.arrays import Array

SIGNED_LIMIT = 127
UNSIGNED_LEVELS = 255


def quantize_columns(weight: Array) -> tuple[Array, Array]:
    """weight [d_in, d_out] -> int8 [d_in, d_out] and scales [d_out], symmetric, each value within scale / 2."""
    scales = column_scales(weight)
    return np.clip(np.rint(weight / scales), -SIGNED_LIMIT, SIGNED_LIMIT).astype(np.int8), scales


def quantize_rows(table: Array) -> tuple[Array, Array]:
    """table [rows, width] -> int8 [rows, width] and scales [rows, 1], symmetric, each value within scale / 2."""
    scales = _scales(np.abs(table).max(1, keepdims=True))
    return np.clip(np.rint(table / scales), -SIGNED_LIMIT, SIGNED_LIMIT).astype(np.int8), scales


def column_scales(weight: Array) -> Array:
    """The scale of each column [d_out] of weight [d_in, d_out]."""
    return _scales(np.maximum(weight.max(0), -weight.min(0)))


def activation_quantizer(low: float, high: float) -> tuple[Array, Array]:
    """The float32 scale and uint8 zero point that span [low, high], which holds zero; zero itself is exact."""
    scale = np.float32((high - low) / UNSIGNED_LEVELS) or np.float32(1)
    zero_point = np.uint8(np.clip(np.rint(-low / scale), 0, UNSIGNED_LEVELS))
    return np.array(scale), np.array(zero_point)


def mean_rounding(rows: Array, weight: Array, scale: Array, zero_point: Array) -> Array:
    """The mean of rows @ weight less the mean of its int8 product, [d_out]: what rounding takes from every output.

    rows [n, d_in], weight [d_in, d_out]. Values that the quantizer clips are compared as clipped: what clipping does
    to a few rows must not move all others.
    """
    zero = float(zero_point)
    inside = np.clip(rows, -zero * scale, (UNSIGNED_LEVELS - zero) * scale)
    rounded = np.clip(np.rint(rows / scale), -zero, UNSIGNED_LEVELS - zero) * scale
    quantized, scales = quantize_columns(weight)
    lost: Array = inside.mean(0) @ weight - (rounded.mean(0) @ quantized.astype(np.float32)) * scales
    return lost


def _scales(largest: Array) -> Array:
    return np.where(largest > 0, largest / SIGNED_LIMIT, 1).astype(np.float32)
