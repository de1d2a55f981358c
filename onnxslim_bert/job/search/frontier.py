"""The models that a search built and measured: which are worth showing (the frontier), and which is chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxslim_bert.errors import AccuracyGateError, GateError, LatencyGateError, SizeGateError
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.proof.class_losses import ClassLoss


@dataclass(frozen=True)
class MeasuredPoint:
    """One model that a search built, with what was measured of it.

    nbytes: of its file, after gzip where the targets are `packed`. ms: milliseconds a run. speedup: times the source's
    speed. damage: |difference| / |original| of the outputs on held-back calibration rows; predicted: the damage that
    was expected before it was built. drop: points of the task metric that it loses against the source, on
    `SearchResult.judged`.
    """

    recipe: str
    file: Path
    nbytes: int
    ms: float
    speedup: float
    damage: float
    predicted: float
    drop: float


@dataclass(frozen=True)
class SearchResult:
    """What a search measured on the way to `targets`.

    judged: name and number of the rows on which drops were measured. source_ms: milliseconds a run of the source.
    frontier: the model with nothing removed, and those that no other beats, slowest first; their files are gone, their
    recipes make them again. chosen: the one that meets the targets. tables: everything that was measured before models
    were built (`MeasuredOptions.shown`). refitted: the frontier of those that were not distilled, where others were;
    else empty. losses: what the chosen one loses of each label of the rows that `judged` names; empty where these have
    no classes.
    """

    targets: Targets
    judged: str
    source_ms: float
    frontier: tuple[MeasuredPoint, ...]
    chosen: MeasuredPoint
    tables: Mapping[str, Any]
    refitted: tuple[MeasuredPoint, ...] = ()
    losses: tuple[ClassLoss, ...] = ()


def frontier(points: Sequence[MeasuredPoint]) -> list[MeasuredPoint]:
    """The points that no other beats, slowest first.

    A point beats another when it is better in one of speed-up, size, damage and drop, and no worse in the others.
    The first of `points`, the model with nothing removed, stays in any case, for the others to be compared with.
    """

    def beats(one: MeasuredPoint, other: MeasuredPoint) -> bool:
        ours, theirs = ((-p.speedup, p.nbytes, p.damage, p.drop) for p in (one, other))
        return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))

    kept = [point for point in points[1:] if not any(beats(other, point) for other in points)]
    return sorted([*points[:1], *kept], key=lambda point: point.speedup)


def pick(points: Sequence[MeasuredPoint], targets: Targets) -> MeasuredPoint:
    """The point that meets `targets` with the least damage, the fastest when only a drop is given.

    Raises LatencyGateError, SizeGateError or AccuracyGateError, saying how far the points come, when none does.
    """
    meeting = [point for point in points if targets.met_by(point.speedup, point.nbytes, point.drop)]
    if not meeting:
        raise _missed(points, targets)
    if targets.speedup is None and targets.nbytes is None:
        return max(meeting, key=lambda point: point.speedup)
    return min(meeting, key=lambda point: (point.damage, -point.speedup))


def nearest(points: Sequence[MeasuredPoint], targets: Targets) -> MeasuredPoint:
    """The point of least damage of those that are fast and small enough; the fastest where none is."""
    reaching = [point for point in points if targets.met_by(point.speedup, point.nbytes, targets.drop or 0.0)]
    return min(reaching, key=lambda p: p.damage) if reaching else max(points, key=lambda p: p.speedup)


def _missed(points: Sequence[MeasuredPoint], targets: Targets) -> GateError:
    fastest, smallest = max(points, key=lambda p: p.speedup), min(points, key=lambda p: p.nbytes)
    if targets.speedup is not None and fastest.speedup < targets.speedup:
        asked = f"--target-speedup {targets.speedup:g}"
        return LatencyGateError(f"{asked} was not reached: the fastest is {_described(fastest)}")
    if targets.nbytes is not None and smallest.nbytes > targets.nbytes:
        asked = f"{targets.size_option} {targets.nbytes / 1e6:.3g}MB"
        return SizeGateError(f"{asked} was not reached: the smallest is {_described(smallest)}")
    small = [p for p in points if targets.nbytes is None or p.nbytes <= targets.nbytes]
    fastest = max(small, key=lambda p: p.speedup)
    if targets.speedup is not None and fastest.speedup < targets.speedup:
        asked = (
            f"--target-speedup {targets.speedup:g} was not reached at {targets.size_option} "
            f"{(targets.nbytes or 0) / 1e6:.3g}MB"
        )
        return LatencyGateError(f"{asked}: the fastest that small is {_described(fastest)}")
    within = [p for p in points if targets.drop is None or p.drop <= targets.drop]
    best = max(within, key=lambda p: p.speedup, default=None)
    least = min(points, key=lambda p: p.drop)
    far = f"the fastest within it is {_described(best)}" if best else f"the nearest is {_described(least)}"
    where = "" if targets.speedup is None and targets.nbytes is None else " at the targets"
    return AccuracyGateError(f"--max-drop {targets.drop:g} does not hold{where}: {far}")


def _described(point: MeasuredPoint) -> str:
    return f"{point.speedup:.2f}x at {point.nbytes / 1e6:.3g} MB and a drop of {point.drop:.2f} points"
