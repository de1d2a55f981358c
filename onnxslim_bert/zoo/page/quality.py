"""The scale of quality of a model's jobs: one measure of closeness to the source that all of them have."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.intervals import Interval
from onnxslim_bert.zoo.page.wording import fixed, signed
from onnxslim_bert.zoo.records import Row

KINDS = ("metric", "agreement", "correlation", "cosine")  # the first that applies is the one to judge by


@dataclass(frozen=True)
class Scale:
    """A measure of quality; more is better.

    kind: one of KINDS. title, unit: for people. source: the value of the source itself. digits: decimals to write.
    """

    kind: str
    title: str
    unit: str
    source: float
    digits: int

    def written(self, value: float) -> str:
        """The value as text: a change of the metric with its sign, "+0.11", others without, "99.66"."""
        return signed(value, self.digits) if self.kind == "metric" else fixed(value, self.digits)

    def spread(self, found: Interval) -> str:
        """The unit and the interval, where there is one."""
        ends = f", {self.written(found.low)} to {self.written(found.high)}" if found.low < found.high else ""
        return f"{self.unit}{ends}"


def scale_of(comparisons: Iterable[Comparison]) -> Scale | None:
    """The scale of the first of KINDS that every one of `comparisons` has a value for; None when none is."""
    seen = list(comparisons)
    for kind in KINDS:
        if seen and all(on_scale(each, kind) for each in seen):
            return _scale(kind, seen[0])
    return None


def on_scale(comparison: Comparison, kind: str) -> Interval | None:
    """The value of a candidate on the scale `kind`, with its interval if it has one; None without a value."""
    close = comparison.fidelity
    if kind == "metric":
        drop = comparison.scores[0].drop if comparison.scores else None
        found = drop and Interval(0.0 - drop.value, 0.0 - drop.high, 0.0 - drop.low)
    elif kind == "agreement":
        found = close.agreement
    else:
        value = close.correlation if kind == "correlation" else close.cosine
        found = None if value is None else Interval(value, value, value)
    if found is None or not math.isfinite(found.value):
        return None
    return found if math.isfinite(found.high - found.low) else Interval(found.value, found.value, found.value)


def quality_of(row: Row, scale: Scale | None) -> Interval | None:
    """Where a job lies on the scale of its model."""
    comparison = row.result.comparison if row.result else None
    return on_scale(comparison, scale.kind) if comparison and scale else None


def loses_nothing(comparison: Comparison) -> bool | None:
    """Whether the interval of the metric's drop holds 0 or a gain; without labels, whether every class is the same.

    None where neither can be said: an embedding without labels.
    """
    if comparison.broken:
        return False
    if comparison.scores:
        return comparison.scores[0].drop.low <= 0
    agreement = comparison.fidelity.agreement
    return None if agreement is None else agreement.value >= 100


def _scale(kind: str, first: Comparison) -> Scale:
    if kind == "metric":
        return Scale(kind, f"{first.scores[0].metric} against the source, points", "points", 0.0, 2)
    if kind == "agreement":
        return Scale(kind, "same class as the source, % of rows", "% agree", 100.0, 2)
    if kind == "correlation":
        return Scale(kind, "correlation with the source, points", "correlation", 100.0, 2)
    return Scale(kind, "cosine to the source", "cosine", 1.0, 4)
