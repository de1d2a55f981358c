"""8-bit quantization of arrays."""

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.wire import release

SIGNED_LIMIT = 127
UNSIGNED_LEVELS = 255
Quantizer = tuple[Array, Array]  # the scale, float32, and the zero point, uint8, of activations
ROWS = 1 << 14  # of a table at a time
LEAST = 1e-30  # what is no larger counts as zero: one over its scale would leave float32
PAIR_LIMIT = 128  # 255 * 128 fits 16 bits, 255 * 129 does not


def quantize_columns(weight: Array, *, reduce_range: bool = False) -> tuple[Array, Array]:
    """weight [d_in, d_out] -> int8 [d_in, d_out] and scales [d_out], symmetric, each value within scale / 2.

    reduce_range: make scales larger, and so integers smaller, just enough that no two neighbouring products with uint8
    leave 16 bits (`saturation`).
    """
    scales = pair_scales(weight) if reduce_range else column_scales(weight)
    return np.clip(np.rint(weight / scales), -SIGNED_LIMIT, SIGNED_LIMIT).astype(np.int8), scales


def quantize_columns_affine(weight: Array) -> tuple[Array, Array, Array]:
    """weight [d_in, d_out] -> uint8 [d_in, d_out], scales [d_out] and uint8 zero points [d_out].

    The levels of a column span its smallest to its largest value and zero, so steps are finer than symmetric ones where
    one side is longer. Example: values from -0.1 to 0.9 have steps of 1/255, symmetric ones 0.9/127. Each value is
    within scale / 2, and zero is exact.
    """
    low, high = np.minimum(weight.min(0), 0), np.maximum(weight.max(0), 0)
    scales = np.where(high - low > LEAST, (high - low) / UNSIGNED_LEVELS, 1).astype(np.float32)
    zero_points = np.rint(-low / scales)
    levels = np.clip(np.rint(weight / scales) + zero_points, 0, UNSIGNED_LEVELS)
    return levels.astype(np.uint8), scales, zero_points.astype(np.uint8)


def quantize_rows(table: Array) -> tuple[Array, Array]:
    """table [rows, width] -> int8 [rows, width] and scales [rows, 1], symmetric, each value within scale / 2.

    Rows are taken some at a time, so that neither a float copy of the whole table nor all of a mapped one is held.
    """
    levels, scales = np.empty(table.shape, np.int8), np.empty((len(table), 1), np.float32)
    for start in range(0, len(table), ROWS):
        some = slice(start, start + ROWS)
        scales[some] = _scales(np.abs(table[some]).max(1, keepdims=True))
        levels[some] = np.clip(np.rint(table[some] / scales[some]), -SIGNED_LIMIT, SIGNED_LIMIT)
        release([table])
    return levels, scales


def column_scales(weight: Array) -> Array:
    """The scale of each column [d_out] of weight [d_in, d_out]."""
    return _scales(np.maximum(weight.max(0), -weight.min(0)))


def pair_scales(weight: Array) -> Array:
    """The least scale [d_out] of each column of `weight` with which no pair of products leaves 16 bits.

    A pair are the integers at inputs 2i and 2i + 1. The positive ones of a pair, and likewise the negative ones, sum to
    at most PAIR_LIMIT in size.
    """
    pairs = np.pad(weight, ((0, len(weight) % 2), (0, 0))).reshape(-1, 2, weight.shape[1])
    largest = np.maximum(np.maximum(pairs, 0).sum(1).max(0), np.maximum(-pairs, 0).sum(1).max(0))
    # each of the two may round up by a half, and sums are whole: what was 127.5 at most is then 128 at most
    scales: Array = np.maximum(column_scales(weight), largest / (PAIR_LIMIT - 0.5)).astype(np.float32)
    return scales


def activation_quantizer(low: float, high: float) -> Quantizer:
    """The float32 scale and uint8 zero point that span [low, high], which holds zero; zero itself is exact."""
    scale = np.float32((high - low) / UNSIGNED_LEVELS if high - low > LEAST else 1)
    zero_point = np.uint8(np.clip(np.rint(-low / scale), 0, UNSIGNED_LEVELS))
    return np.array(scale), np.array(zero_point)


def mean_rounding(
    rows: Array, weight: Array, integers: tuple[Array, Array], scale: Array | None, zero_point: Array | None
) -> Array:
    """What rounding takes off each output on average, [d_out]: the mean of rows @ weight less that of its int8 product.

    rows [n, d_in], weight [d_in, d_out]; integers: what `quantize_columns` makes of the weight. scale, zero_point: of
    the rows' quantizer. Both means are of the rows as it clips them, because what clipping does to a few rows must not
    move all others. Both None for a range found at run time, whose rounding goes either way: then the weight's rounding
    alone counts.
    """
    inside = rounded = rows
    if scale is not None and zero_point is not None:
        zero = float(zero_point)
        inside = np.clip(rows, -zero * scale, (UNSIGNED_LEVELS - zero) * scale)
        rounded = np.clip(np.rint(rows / scale), -zero, UNSIGNED_LEVELS - zero) * scale
    quantized, scales = integers
    lost: Array = inside.mean(0) @ weight - (rounded.mean(0) @ quantized.astype(np.float32)) * scales
    return lost


def _scales(largest: Array) -> Array:
    return np.where(largest > LEAST, largest / SIGNED_LIMIT, 1).astype(np.float32)
