"""The difference between one job's results in two runs, and whether it is more than chance."""

import math
from dataclasses import dataclass
from typing import Literal

from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.fidelity import Fidelity
from onnxslim_bert.proof.intervals import Interval
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.zoo.records import Result, Row, Timed

Aspect = Literal["metric", "agreement", "speed-up", "nodes", "pieces", "size"]
Way = Literal["better", "worse", "same"]
MOST = 50.0  # logarithm of a quotient of times, beyond which it is no measurement
SAME_SIZE = 0.01  # percent: notes in the file, such as our version, are no change


@dataclass(frozen=True)
class Difference:
    """One aspect of a job in the old and in the new run.

    aspect, with the unit of `old` and `new`, and in brackets that of `loss`:
    "metric": points of the task metric that the model loses against its source (points). "agreement": percent of rows
    that get the class that the source gives; without classes the mean cosine or the correlation, in percent (percent).
    "speed-up": times the source's speed (percent of time). "nodes": percent of the nodes that the provider runs
    (percent). "pieces": number of partitions that it runs them in (pieces). "size": bytes (percent of size).

    loss: how much worse the new run is, below 0 when it is better. Example: "size" 20 MB, then 22 MB: loss 10.
    way: "worse" or "better" when the whole 95 % interval of the loss is above or below 0, else "same". open: why the
    two cannot be compared, such as other rows or another CPU; "" when they can.
    """

    aspect: Aspect
    old: float
    new: float
    loss: Interval
    way: Way
    open: str = ""


def changes(old: Row, new: Row, *, other_times: str = "") -> list[Difference]:
    """Every aspect of a job that both runs measured. other_times: why times cannot be compared, or ""."""
    found: list[Difference] = []
    if old.result and new.result:
        before, after = old.result, new.result
        if before.comparison and after.comparison:
            found += _accuracy(before.comparison, after.comparison)
        if before.placement and after.placement:
            found += _coverage(before.placement, after.placement)
        found.append(_size(before, after))
    if old.timed and new.timed:
        found += _times(old.timed, new.timed, other_times)
    return found


def difference(old: Interval, new: Interval) -> Interval:
    """The interval of new - old, from the intervals of two independent measurements.

    In truth both are measured on the same rows, so that the true interval is narrower: this one rather calls a real
    difference chance than chance a difference. Zou and Donner 2008, https://doi.org/10.1002/sim.3095
    """
    value = new.value - old.value
    down = math.hypot(new.value - new.low, old.high - old.value)
    up = math.hypot(new.high - new.value, old.value - old.low)
    return Interval(value, value - down, value + up)


def _accuracy(old: Comparison, new: Comparison) -> list[Difference]:
    open_ = ""
    if old.fingerprint != new.fingerprint:
        open_ = f"other rows: {old.data} {old.split}, {old.rows}, and {new.data} {new.split}, {new.rows}"
    found = []
    if old.scores and new.scores and old.scores[0].metric == new.scores[0].metric:
        before, after = old.scores[0].drop, new.scores[0].drop
        found.append(_change("metric", before, after, _loss(before, after), open_))
    close, closer = closeness(old.fidelity), closeness(new.fidelity)
    if close and closer:
        found.append(_change("agreement", close, closer, _loss(closer, close), open_))
    return [one for one in found if all(map(math.isfinite, (one.old, one.new, one.loss.low, one.loss.high)))]


def closeness(seen: Fidelity) -> Interval | None:
    """Agreement in percent; without classes the mean cosine or the correlation in percent, without an interval."""
    if seen.agreement is not None:
        return seen.agreement
    value = seen.correlation if seen.cosine is None else 100 * seen.cosine
    return None if value is None else Interval(value, value, value)


def _times(old: Timed, new: Timed, other_times: str) -> list[Difference]:
    before, after = old.latency.speedup, new.latency.speedup
    if not (before.low > 0 and after.low > 0):  # or not a number
        return []
    # a quotient's interval is that of the difference of logarithms
    logs = [Interval(*(-math.log(end) for end in (times.value, times.high, times.low))) for times in (before, after)]
    slower = _loss(*logs)
    loss = Interval(*(100 * math.expm1(min(end, MOST)) for end in (slower.value, slower.low, slower.high)))
    return [_change("speed-up", before, after, loss, other_times)]


def _coverage(old: Placement, new: Placement) -> list[Difference]:
    open_ = ""
    if old.predicted != new.predicted:
        open_ = "seen now, predicted before" if old.predicted else "predicted now, seen before"
    shares = 100 * old.share, 100 * new.share
    return [
        _exact("nodes", *shares, shares[0] - shares[1], open_),
        _exact("pieces", old.partitions, new.partitions, new.partitions - old.partitions, open_),
    ]


def _size(old: Result, new: Result) -> Difference:
    grown = 100 * (new.output_bytes / old.output_bytes - 1) if old.output_bytes else 0.0
    return _exact("size", old.output_bytes, new.output_bytes, grown if abs(grown) > SAME_SIZE else 0.0)


def _loss(first: Interval, second: Interval) -> Interval:
    """second - first; exactly 0 when both are the same measurement."""
    return difference(first, second) if first != second else Interval(0.0, 0.0, 0.0)


def _exact(aspect: Aspect, old: float, new: float, loss: float, open_: str = "") -> Difference:
    before, after, lost = (Interval(value, value, value) for value in (old, new, loss))
    return _change(aspect, before, after, lost, open_)


def _change(aspect: Aspect, old: Interval, new: Interval, loss: Interval, open_: str) -> Difference:
    way: Way = "same"
    if not open_ and (loss.low > 0 or loss.high < 0):
        way = "worse" if loss.low > 0 else "better"
    return Difference(aspect, old.value, new.value, loss, way, open_)
