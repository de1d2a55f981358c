"""Measure the error of a dense layer's int8 product on sampled inputs, and choose the smoothing scales with the least.

Errors are compared, so some of the columns of a wide weight, evenly spread, serve for all.

Everywhere: rows [n, channels] are sampled inputs, spanned [2, channels] each channel's smallest and largest value over
all calibration rows, weights [channels, any].
"""

from collections.abc import Sequence

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.rewriting.int8.quantizers import activation_quantizer, column_scales

STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMALLEST = 1e-5  # of a channel's largest value, so that dead channels keep finite scales
COLUMNS = 256  # of a weight on which errors are measured at least, where it has so many; less than twice as many


def choose_scales(
    rows: Array, spanned: Array, weights: Sequence[Array], gain: float
) -> tuple[float, Array | None, float]:
    """The smoothing strength with the least squared error of the int8 product, its scales [channels], and that error.

    gain: scales must bring the error below this share of what it is without. If none do, the result is 0, None and the
    error without. Example: gain=0.6, 100 without scales and 70 at best give (0, None, 100). Xiao et al. 2023
    (https://arxiv.org/abs/2211.10438), equation 4.
    """
    largest = np.maximum(np.abs(spanned).max(0), SMALLEST)
    heaviest = np.maximum(np.max([np.abs(w).max(1) for w in weights], 0), SMALLEST)
    stacked = some_columns(np.concatenate(weights, axis=1))
    exact = rows @ stacked
    plain = product_error(rows, spanned, stacked, exact)
    own = np.stack([rows.min(0), rows.max(0)])
    free = product_error(rows, own, stacked, exact)
    best: tuple[float, Array | None, float] = (0.0, None, plain)
    for strength in STRENGTHS:
        scales = largest**strength / heaviest ** (1 - strength)
        scales = (scales / np.exp(np.log(scales).mean())).astype(np.float32)
        error = product_error(rows, spanned, stacked, exact, scales)
        if error < min(best[2], gain * plain) and product_error(rows, own, stacked, exact, scales) <= free:
            best = strength, scales, error
    return best


def some_columns(weight: Array) -> Array:
    """Every column of weight [channels, any], or every second, third, ..., as many as leave COLUMNS or more."""
    return np.ascontiguousarray(weight[:, :: max(weight.shape[1] // COLUMNS, 1)])


def product_error(rows: Array, spanned: Array, weight: Array, exact: Array, scales: Array | None = None) -> float:
    """The squared error, summed over all elements, of the int8 product of rows and weight against `exact` [n, any].

    scales: [channels], by which input channels are divided and the weight's rows multiplied; None: by 1.
    """
    divisor = np.ones(rows.shape[1], np.float32) if scales is None else scales
    low, high = float((spanned[0] / divisor).min()), float((spanned[1] / divisor).max())
    scale, zero_point = activation_quantizer(min(low, 0.0), max(high, 0.0))
    zero = np.float32(zero_point)
    levels = np.clip(np.rint(rows * (1 / (divisor * scale))), -zero, 255 - zero)
    scaled = weight * divisor[:, None]
    columns = column_scales(scaled)
    product = (levels @ np.rint(scaled * (1 / columns))) * (scale * columns)
    return float(np.square(product - exact).sum(dtype=np.float64))
