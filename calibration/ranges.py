"""The range of an 8-bit quantizer, chosen from a statistic of what it will quantize."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Histogram, Range

Method = Literal["minmax", "moving-average", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
WANTED = {"minmax": "minmax", "moving-average": "moving-average"}  # the others read the histogram
PERCENTILE = 99.99
LEVELS = 256
FRACTIONS = np.linspace(0.3, 1, 36)  # of the histogram's range, tried as clipping thresholds


def observer_of(method: Method) -> str:
    """The observer whose result `quantizer_range` needs for `method`."""
    return WANTED.get(method, "histogram")


def quantizer_range(method: Method, statistic: Any) -> Range:
    """The range [low, high] that the quantizer spans, chosen by `method`; it always holds zero.

    statistic: what `observer_of(method)` found, a Range or a Histogram.
    """
    found = statistic if isinstance(statistic, Range) else FROM_HISTOGRAM[method](statistic)
    return Range(min(found.low, 0.0), max(found.high, 0.0))


def _percentile(histogram: Histogram) -> Range:
    """The range that leaves out (100 - PERCENTILE) / 2 per cent of the values on each side."""
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    edges = _edges(histogram)
    outside = (100 - PERCENTILE) / 200
    low = edges[np.searchsorted(share, outside, side="right")]
    high = edges[np.searchsorted(share, 1 - outside) + 1]
    return Range(float(low), float(high))


def _mse(histogram: Histogram) -> Range:
    """The clipped range with the least squared error, rounding and clipping together."""
    centres = (_edges(histogram)[:-1] + _edges(histogram)[1:]) / 2
    return min(_clipped(histogram), key=lambda clipped: _squared_error(histogram.counts, centres, clipped))


def _entropy(histogram: Histogram) -> Range:
    """The clipped range whose quantized distribution diverges least from the clipped one (Migacz 2017, GTC)."""
    return min(_clipped(histogram), key=lambda clipped: _divergence(histogram, clipped))


def _clipped(histogram: Histogram) -> list[Range]:
    """The ranges to try: for each of FRACTIONS, both ends shrunk by it, the high end alone, and the low end alone."""
    occupied = np.flatnonzero(histogram.counts)
    edges = _edges(histogram)
    low, high = min(float(edges[occupied[0]]), 0.0), max(float(edges[occupied[-1] + 1]), 0.0)
    return [Range(low * a, high * b) for f in FRACTIONS[::-1] for a, b in ((f, f), (1.0, f), (f, 1.0))]


def _squared_error(counts: Array, centres: Array, clipped: Range) -> float:
    step = (clipped.high - clipped.low) / (LEVELS - 1) or 1.0
    restored = np.clip(np.round((centres - clipped.low) / step), 0, LEVELS - 1) * step + clipped.low
    return float(np.sum(counts * (centres - restored) ** 2))


def _divergence(histogram: Histogram, clipped: Range) -> float:
    edges = _edges(histogram)
    centres = (edges[:-1] + edges[1:]) / 2
    inside = (centres >= clipped.low) & (centres <= clipped.high)
    counts = histogram.counts.astype(np.float64)
    reference = np.where(inside, counts, 0.0)
    index = np.flatnonzero(inside)
    if not index.size:
        return np.inf
    reference[index[0]] += counts[: index[0]].sum()
    reference[index[-1]] += counts[index[-1] + 1 :].sum()
    step = (clipped.high - clipped.low) / LEVELS or 1.0
    level = np.clip(((centres - clipped.low) / step).astype(int), 0, LEVELS - 1)[index]
    occupied = (reference[index] > 0).astype(np.float64)
    mass = np.bincount(level, counts[index], LEVELS)
    bins = np.bincount(level, occupied, LEVELS)
    quantized = np.where(occupied > 0, mass[level] / np.maximum(bins[level], 1), 0)
    p, q = reference[index] / reference.sum(), quantized / max(quantized.sum(), 1e-30)
    both = (p > 0) & (q > 0)
    missing = p[(p > 0) & (q == 0)].sum()
    return float(np.sum(p[both] * np.log(p[both] / q[both])) + 10 * missing)


def _edges(histogram: Histogram) -> Array:
    return np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)


FROM_HISTOGRAM: dict[str, Callable[[Histogram], Range]] = {"percentile": _percentile, "mse": _mse, "entropy": _entropy}
