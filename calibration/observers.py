"""Statistics that are updated batch by batch and never keep activations.

Every observer takes rows [tokens, channels], padding dropped, and its size does not depend on how many rows pass by.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from onnxslim_bert.arrays import Array

BINS = 2048
SAMPLE_ROWS = 256
MOMENTUM = 0.9


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value seen."""

    low: float
    high: float


@dataclass(frozen=True)
class Histogram:
    """counts [bins] of values between `low` and `high`, in bins of equal width."""

    counts: Array
    low: float
    high: float


@dataclass(frozen=True)
class Gram:
    """Second moments of rows x [channels]: products, the sum of x xᵀ [channels, channels]; sums [channels]; rows."""

    products: Array
    sums: Array
    rows: int


class Observer(ABC):
    """One statistic of one tensor."""

    @abstractmethod
    def update(self, rows: Array) -> None:
        """Take in rows [tokens, channels]."""

    @abstractmethod
    def result(self) -> Any:
        """The statistic of all rows so far."""


class MinMax(Observer):
    """The range of all values."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def update(self, rows: Array) -> None:
        self.low = min(self.low, float(rows.min()))
        self.high = max(self.high, float(rows.max()))

    def result(self) -> Range:
        return Range(self.low, self.high)


class MovingAverage(Observer):
    """The batches' ranges averaged with exponential decay (Jacob et al. 2018, https://arxiv.org/abs/1712.05877)."""

    def __init__(self) -> None:
        self.range: Range | None = None

    def update(self, rows: Array) -> None:
        low, high = float(rows.min()), float(rows.max())
        if self.range is not None:
            low = MOMENTUM * self.range.low + (1 - MOMENTUM) * low
            high = MOMENTUM * self.range.high + (1 - MOMENTUM) * high
        self.range = Range(low, high)

    def result(self) -> Range | None:
        return self.range


class StreamingHistogram(Observer):
    """A histogram whose range doubles when a value falls outside, merging pairs of bins: no value is dropped."""

    def __init__(self) -> None:
        self.counts: Array | None = None
        self.low = self.width = 0.0

    def update(self, rows: Array) -> None:
        low, high = float(rows.min()), float(rows.max())
        if self.counts is None:
            self.low = low
            self.width = max((high - low) / BINS, float(np.finfo(np.float32).tiny)) * (1 + 1e-6)
            self.counts = np.zeros(BINS, np.int64)
        while high >= self.low + BINS * self.width:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.width *= 2
        while low < self.low:
            self.counts = np.concatenate([np.zeros(BINS // 2, np.int64), self.counts.reshape(-1, 2).sum(1)])
            self.low -= BINS * self.width
            self.width *= 2
        index = ((rows.reshape(-1) - np.float32(self.low)) * np.float32(1 / self.width)).astype(np.int32)
        self.counts = self.counts + np.bincount(np.clip(index, 0, BINS - 1), minlength=BINS)

    def result(self) -> Histogram:
        if self.counts is None:
            raise ValueError("no rows were seen")
        return Histogram(self.counts, self.low, self.low + BINS * self.width)


class ChannelRange(Observer):
    """The smallest and the largest value of each channel, [2, channels]."""

    def __init__(self) -> None:
        self.ranges: Array | None = None

    def update(self, rows: Array) -> None:
        ranges = np.stack([rows.min(0), rows.max(0)])
        if self.ranges is not None:
            ranges = np.stack([np.minimum(self.ranges[0], ranges[0]), np.maximum(self.ranges[1], ranges[1])])
        self.ranges = ranges

    def result(self) -> Array | None:
        return self.ranges


class Sample(Observer):
    """SAMPLE_ROWS rows drawn uniformly from all rows, [rows, channels] (reservoir sampling, Vitter 1985)."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.seen = 0
        self.kept: Array | None = None

    def update(self, rows: Array) -> None:
        if self.kept is None:
            self.kept = np.empty((SAMPLE_ROWS, rows.shape[1]), rows.dtype)
        fill = max(min(SAMPLE_ROWS - self.seen, len(rows)), 0)
        self.kept[self.seen : self.seen + fill] = rows[:fill]
        order = self.seen + fill + np.arange(len(rows) - fill)
        places = (self.rng.random(len(order)) * (order + 1)).astype(np.int64)
        taken = np.flatnonzero(places < SAMPLE_ROWS)
        self.kept[places[taken]] = rows[fill + taken]
        self.seen += len(rows)

    def result(self) -> Array | None:
        return None if self.kept is None else self.kept[: self.seen]


class SecondMoments(Observer):
    """The second moments of the rows, which a least-squares fit on them needs; batches are added up in float64.

    Float32 products of rows lose what varies little beside its mean, so they are those of the rows less a first mean.
    """

    def __init__(self) -> None:
        self.origin: Array | None = None
        self.products: Array | None = None
        self.sums: Array | float = 0.0
        self.rows = 0

    def update(self, rows: Array) -> None:
        if self.origin is None:
            self.origin = rows.mean(0)
        moved = rows - self.origin
        products = moved.T @ moved
        if self.products is None:
            self.products = products.astype(np.float64)
        else:
            self.products += products
        self.sums = self.sums + rows.sum(0, dtype=np.float64)
        self.rows += len(rows)

    def result(self) -> Gram | None:
        if self.origin is None or self.products is None:
            return None
        origin = self.origin.astype(np.float64)
        products = np.outer(self.sums - self.rows / 2 * origin, origin)
        products += products.T
        products += self.products
        return Gram(products, np.asarray(self.sums), self.rows)


class Square(Observer):
    """The mean of the squares of each channel, [channels]."""

    def __init__(self) -> None:
        self.total: Array | float = 0.0
        self.rows = 0

    def update(self, rows: Array) -> None:
        self.total = self.total + np.square(rows, dtype=np.float64).sum(0)
        self.rows += len(rows)

    def result(self) -> Array:
        return np.asarray(self.total) / max(self.rows, 1)


class Counts(Observer):
    """How often each id occurs in rows [tokens] of ids, [the largest id seen + 1]."""

    def __init__(self) -> None:
        self.counts: Array = np.zeros(0, np.int64)

    def update(self, rows: Array) -> None:
        self.counts = add_counts(self.counts, np.bincount(rows.reshape(-1)))

    def result(self) -> Array:
        return self.counts


def add_counts(left: Array, right: Array) -> Array:
    """The sum of two histograms of ids, each [its largest id + 1]; as long as the longer one."""
    short, long = sorted((left, right), key=len)
    total: Array = long + np.pad(short, (0, len(long) - len(short)))
    return total


OBSERVERS: dict[str, Callable[[], Observer]] = {
    "minmax": MinMax,
    "moving-average": MovingAverage,
    "histogram": StreamingHistogram,
    "channel-range": ChannelRange,
    "sample": Sample,
    "gram": SecondMoments,
    "square": Square,
    "counts": Counts,
}


@dataclass(frozen=True)
class Want:
    """One statistic that a pass asks for.

    tensor: the tensor it is taken of, [tokens, channels] once padding is dropped.
    kind: a name in `calibration.observers.OBSERVERS`, "sample" for instance.
    hard: taken of hard rows, too (`hard_rows`): what it says must hold for rows that no calibration text is like.
    """

    tensor: str
    kind: str
    hard: bool = False


# The kinds of statistic that are no arrays; the numbers in their fields become arrays without a dimension.
TYPES: dict[str, type[Any]] = {"minmax": Range, "moving-average": Range, "histogram": Histogram, "gram": Gram}


def packed(kind: str, statistics: Sequence[Any]) -> dict[str, Array]:
    """Several statistics of one kind as named arrays, in a form that a `Cache` keeps.

    Example: two ranges become 0.low, 0.high, 1.low and 1.high; two arrays become 0.values and 1.values.
    """
    if kind not in TYPES:
        return {f"{i}.values": values for i, values in enumerate(statistics)}
    names = [field.name for field in fields(TYPES[kind])]
    return {f"{i}.{name}": np.asarray(getattr(one, name)) for i, one in enumerate(statistics) for name in names}


def unpacked(kind: str, arrays: Mapping[str, Array], count: int) -> list[Any]:
    """The inverse of `packed`: the `count` statistics that `arrays` hold. Raises KeyError when one is missing."""
    if kind not in TYPES:
        return [arrays[f"{i}.values"] for i in range(count)]
    names = [field.name for field in fields(TYPES[kind])]
    return [TYPES[kind](**{name: _plain(arrays[f"{i}.{name}"]) for name in names}) for i in range(count)]


def _plain(values: Array) -> Any:
    """The number that an array without a dimension holds; any other array as it is."""
    return values if values.ndim else values.item()
