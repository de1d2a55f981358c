"""How much the rows carry: confidence intervals and a test for paired results."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt
from statistics import NormalDist

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.proof.metrics import Metric, score

LEVEL = 0.95
RESAMPLES = 2000
CHUNK = 250_000  # counts held at once: 2 MB, whatever the number of rows


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its 95 % confidence interval, all in one unit."""

    value: float
    low: float
    high: float


def in_unit(interval: Interval, size: float) -> Interval:
    """The interval in another unit: percent in shares with a `size` of 0.01."""
    return Interval(interval.value * size, interval.low * size, interval.high * size)


@dataclass(frozen=True)
class McNemar:
    """Rows that only one of two classifiers gets right, and the chance of a split at least as uneven.

    p: exact two-sided binomial probability if both were equally good.

    McNemar 1947, https://doi.org/10.1007/BF02295996
    """

    only_base: int
    only_candidate: int
    p: float


def wilson(hits: int, rows: int) -> Interval:
    """Interval of a proportion, in percent; right for small samples and at 0 and 100 too.

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share = hits / rows
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z * sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows)) / (1 + z * z / rows)
    return Interval(100 * share, 100 * max(0.0, centre - half), 100 * min(1.0, centre + half))


def bootstrap(metric: Metric, predictions: Array, labels: Array, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """One model's metric, in points; predictions, labels: [rows].

    Percentile interval, Efron and Tibshirani 1993.
    """
    samples = [metric(predictions, labels, counts) for counts in resample(len(labels), resamples, seed)]
    return _interval(score(metric, predictions, labels), np.concatenate(samples))


def paired_bootstrap(
    metric: Metric, base: Array, candidate: Array, labels: Array, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The drop from base to candidate, in points; positive when the candidate is worse.

    base, candidate, labels: [rows]. Both models are scored on the same resampled rows, so what makes a row hard for
    both cancels. Percentile interval, Efron and Tibshirani 1993.
    """
    drops = [
        metric(base, labels, counts) - metric(candidate, labels, counts)
        for counts in resample(len(labels), resamples, seed)
    ]
    drop = score(metric, base, labels) - score(metric, candidate, labels)
    return _interval(drop, np.concatenate(drops))


def with_unseen(drop: Interval, rows: int) -> Interval:
    """`drop`, in points, with the upper end of its interval raised to at least `drop.value` + 300 / rows.

    Equal answers on few rows prove little: on 100 rows without a difference, the drop may still be 3 points.
    Rule of three, Hanley and Lippman-Hand 1983, https://doi.org/10.1001/jama.1983.03330370053031
    """
    return replace(drop, high=max(drop.high, min(drop.value + 300 / rows, 100.0)))


def paired_ratio(first: Array, second: Array, seed: int = 0) -> Interval:
    """Median of first / second over paired rounds; first, second: [rounds]."""
    ratios = first / second
    drawn = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    return _interval(float(np.median(ratios)), np.median(ratios[drawn], axis=1))


def ratio_of_means(first: Array, second: Array, seed: int = 0) -> Interval:
    """Mean of first over mean of second, of paired rounds; first, second: [rounds].

    For rounds that are not alike, of texts of many lengths: what takes most of the time counts most.
    """
    drawn = np.random.default_rng(seed).integers(len(first), size=(RESAMPLES, len(first)))
    return _interval(float(first.mean() / second.mean()), first[drawn].mean(1) / second[drawn].mean(1))


def mcnemar(base_right: Array, candidate_right: Array) -> McNemar:
    """Compare two classifiers row by row; both arguments are bool [rows]."""
    only_base = int(np.sum(base_right & ~candidate_right))
    only_candidate = int(np.sum(~base_right & candidate_right))
    split = only_base + only_candidate
    ways = term = 1
    for k in range(min(only_base, only_candidate)):
        term = term * (split - k) // (k + 1)
        ways += term
    return McNemar(only_base, only_candidate, min(1.0, 2 * ways / 2**split))


def resample(rows: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each row is drawn, in chunks [some resamples, rows] of bounded size."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // rows)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def _interval(value: float, samples: Array) -> Interval:
    low, high = np.percentile(samples, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(value, float(low), float(high))
