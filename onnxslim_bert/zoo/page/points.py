"""The jobs of a model, and the model itself, as points of a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnxslim_bert.zoo.page.quality import Scale, quality_of
from onnxslim_bert.zoo.page.trades import Trade, missed, outcome
from onnxslim_bert.zoo.page.wording import TIMES, fixed, megabytes, ratio, with_ends
from onnxslim_bert.zoo.records import Row

SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down")
SOURCE = "M0,-1L.24,-.31L.95,-.31L.38,.12L.59,.81L0,.4L-.59,.81L-.38,.12L-.95,-.31L-.24,-.31Z"  # a star


@dataclass(frozen=True)
class ChartPoint:
    """A job, or the source, as a point of one picture.

    x: megabytes or milliseconds. y: quality, on the model's `Scale`; low, high: its interval. target: "" for the source
    in the picture of sizes. colour, shape: those of the target; the source is a star. best: whether the point is
    filled. missed: whether a budget was missed. The other fields are text for the tooltip.
    """

    name: str
    x: float
    y: float
    low: float
    high: float
    target: str
    colour: str
    shape: str
    best: bool
    missed: bool
    size: str
    latency: str
    faster: str
    quality: str
    outcome: str

    @property
    def said(self) -> str:
        """What a screen reader says."""
        return f"{self.name}: {self.size}, {self.latency}, {self.quality}, {self.outcome}"


def source_point(trade: Trade, scale: Scale, target: str | None, targets: Sequence[str]) -> ChartPoint | None:
    """The source as a point: with its latency as timed for `target`, or, when that is None, with its size.

    None where the source was not timed for the target.
    """
    source, timing = trade.source, trade.source.timings.get(target or "")
    timed = timing.source if timing else None
    if target is not None and timed is None:
        return None
    return ChartPoint(
        name=f"source · {target}" if target else "source",
        x=timed.latency.median_ms if timed else source.nbytes / 1e6,
        y=scale.source,
        low=scale.source,
        high=scale.source,
        target=target or "",
        colour=colour(targets.index(target)) if target in targets else "var(--ink)",
        shape=SOURCE,
        best=True,
        missed=False,
        size=f"{megabytes(source.nbytes)} MB",
        latency=fixed(timed.latency.median_ms if timed else None, 2, " ms"),
        faster=ratio(1.0),
        quality=f"{scale.written(scale.source)} {scale.unit}",
        outcome="as it was given",
    )


def job_point(row: Row, scale: Scale, best: bool, targets: Sequence[str]) -> ChartPoint | None:
    """A job in the picture of sizes."""
    quality = quality_of(row, scale)
    if row.result is None or quality is None:
        return None
    index = targets.index(row.target)
    latency = row.timed.latency if row.timed else None
    return ChartPoint(
        name=f"{row.recipe} · {row.target}",
        x=row.result.output_bytes / 1e6,
        y=quality.value,
        low=quality.low,
        high=quality.high,
        target=row.target,
        colour=colour(index),
        shape=SHAPES[index % len(SHAPES)],
        best=best,
        missed=bool(missed(row)),
        size=f"{megabytes(row.result.output_bytes)} MB",
        latency=fixed(latency.median_ms if latency else None, 2, " ms"),
        faster=with_ends(latency.speedup if latency else None, TIMES),
        quality=f"{scale.written(quality.value)} {scale.spread(quality)}",
        outcome=outcome(row),
    )


def colour(index: int) -> str:
    """The colour, a variable of style.css, of the target with this number."""
    return f"var(--target-{index % 5})"


def undrawn(trade: Trade) -> list[Row]:
    """The jobs without a point: no model, or none that was compared."""
    scale = trade.scale
    return [row for row in trade.rows if scale is None or job_point(row, scale, False, [row.target]) is None]
