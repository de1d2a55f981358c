"""8-bit quantization of arrays."""

import numpy as np

from onnxslim_bert.arrays import Array

SIGNED_LIMIT = 127
UNSIGNED_LEVELS = 255
PAIR_LIMIT = 128  # 255 * 128 fits 16 bits, 255 * 129 does not


def quantize_columns(weight: Array, *, reduce_range: bool = False) -> tuple[Array, Array]:
    """weight [d_in, d_out] -> int8 [d_in, d_out] and scales [d_out], symmetric, each value within scale / 2.

    reduce_range: scales are as much larger as it takes that no product with uint8 saturates 16 bits (`saturation`).
    """
    scales = pair_scales(weight) if reduce_range else column_scales(weight)
    return np.clip(np.rint(weight / scales), -SIGNED_LIMIT, SIGNED_LIMIT).astype(np.int8), scales


def quantize_columns_affine(weight: Array) -> tuple[Array, Array, Array]:
    """weight [d_in, d_out] -> uint8 [d_in, d_out], scales [d_out] and uint8 zero points [d_out].

    Each column's levels span its own smallest to its largest value, zero included: steps are finer than symmetric ones
    where the two differ. Each value is within scale / 2, and zero is exact.
    """
    low, high = np.minimum(weight.min(0), 0), np.maximum(weight.max(0), 0)
    scales = np.where(high > low, (high - low) / UNSIGNED_LEVELS, 1).astype(np.float32)
    zero_points = np.rint(-low / scales)
    levels = np.clip(np.rint(weight / scales) + zero_points, 0, UNSIGNED_LEVELS)
    return levels.astype(np.uint8), scales, zero_points.astype(np.uint8)


def quantize_rows(table: Array) -> tuple[Array, Array]:
    """table [rows, width] -> int8 [rows, width] and scales [rows, 1], symmetric, each value within scale / 2."""
    scales = _scales(np.abs(table).max(1, keepdims=True))
    return np.clip(np.rint(table / scales), -SIGNED_LIMIT, SIGNED_LIMIT).astype(np.int8), scales


def column_scales(weight: Array) -> Array:
    """The scale of each column [d_out] of weight [d_in, d_out]."""
    return _scales(np.maximum(weight.max(0), -weight.min(0)))


def pair_scales(weight: Array) -> Array:
    """The least scale [d_out] with which integers of one sign at inputs 2i and 2i+1 sum to PAIR_LIMIT at most."""
    pairs = np.pad(weight, ((0, len(weight) % 2), (0, 0))).reshape(-1, 2, weight.shape[1])
    largest = np.maximum(np.maximum(pairs, 0).sum(1).max(0), np.maximum(-pairs, 0).sum(1).max(0))
    # two roundings add up to one
    scales: Array = np.maximum(column_scales(weight), largest / (PAIR_LIMIT - 0.5)).astype(np.float32)
    return scales


def activation_quantizer(low: float, high: float) -> tuple[Array, Array]:
    """The float32 scale and uint8 zero point that span [low, high], which holds zero; zero itself is exact."""
    scale = np.float32((high - low) / UNSIGNED_LEVELS) or np.float32(1)
    zero_point = np.uint8(np.clip(np.rint(-low / scale), 0, UNSIGNED_LEVELS))
    return np.array(scale), np.array(zero_point)


def mean_rounding(rows: Array, weight: Array, scale: Array, zero_point: Array, *, reduce_range: bool = False) -> Array:
    """The mean of rows @ weight less the mean of its int8 product, [d_out]: what rounding takes from every output.

    rows [n, d_in], weight [d_in, d_out]. Values that the quantizer clips are compared as clipped: what clipping does
    to a few rows must not move all others.
    """
    zero = float(zero_point)
    inside = np.clip(rows, -zero * scale, (UNSIGNED_LEVELS - zero) * scale)
    rounded = np.clip(np.rint(rows / scale), -zero, UNSIGNED_LEVELS - zero) * scale
    quantized, scales = quantize_columns(weight, reduce_range=reduce_range)
    lost: Array = inside.mean(0) @ weight - (rounded.mean(0) @ quantized.astype(np.float32)) * scales
    return lost


def _scales(largest: Array) -> Array:
    return np.where(largest > 0, largest / SIGNED_LIMIT, 1).astype(np.float32)
