"""The two pictures of a model's frontier, as numbers: axes, points, and the lines that join the best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnxslim_bert.zoo.page.pareto import pareto
from onnxslim_bert.zoo.page.points import SOURCE, ChartPoint, job_point, source_point
from onnxslim_bert.zoo.page.quality import Scale
from onnxslim_bert.zoo.page.trades import Trade, optimal

ROOM = 0.06  # of an axis, beyond the outermost point


@dataclass(frozen=True)
class Panel:
    """One picture: its axes, points and lines, as numbers.

    x, y: the ends of either axis; x is logarithmic, and `ticks` are its. joined: the places that lines go through, for
    each target those of its Pareto-optimal points in this picture, by x.
    """

    x_title: str
    y_title: str
    x: tuple[float, float]
    y: tuple[float, float]
    ticks: tuple[float, ...]
    points: tuple[ChartPoint, ...]
    joined: tuple[dict[str, Any], ...]

    def pixels(self, x: float, y: float, width: int, height: int) -> tuple[float, float]:
        """Where a value lies in a picture so large: logarithmic to the right, linear upwards."""
        (x_low, x_high), (y_low, y_high) = self.x, self.y
        across = (math.log(x) - math.log(x_low)) / (math.log(x_high) - math.log(x_low))
        return width * across, height * (y_high - y) / (y_high - y_low)


def panels(trade: Trade, targets: Sequence[str]) -> list[Panel]:
    """The pictures of a model: size against quality, and latency against quality; one without any job is left out.

    targets: all targets of the run; their places in it decide colours and shapes.
    """
    scale = trade.scale
    if scale is None:
        return []
    best = optimal(trade)
    sizes = [source_point(trade, scale, None, targets)]
    times = [source_point(trade, scale, target, targets) for target in trade.source.timings]
    jobs = [(row, job_point(row, scale, row.key in best, targets)) for row in trade.rows]
    sizes += [point for _, point in jobs if point]
    times += [replace(point, x=row.timed.latency.median_ms) for row, point in jobs if point and row.timed]
    found = {"file, MB": sizes, "latency, ms": times}
    drawn = {title: [point for point in points if point and 0 < point.x < math.inf] for title, points in found.items()}
    return [
        _panel(title, scale, points)
        for title, points in drawn.items()
        if any(point.shape != SOURCE for point in points)
    ]


def _panel(title: str, scale: Scale, points: list[ChartPoint]) -> Panel:
    xs = [math.log(point.x) for point in points]
    ends = [end for point in points for end in (point.low, point.high, point.y)]
    x_low, x_high = _ends(xs, 0.1)
    x, y = (math.exp(x_low), math.exp(x_high)), _ends(ends, 1e-3)
    return Panel(title, scale.title, x, y, ticks(*x), tuple(points), _joined(points))


def _ends(values: Sequence[float], least: float) -> tuple[float, float]:
    """The ends of an axis with room around `values`."""
    low, high = min(values), max(values)
    room = max((high - low) * ROOM, least)
    return low - room, high + room


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Round numbers between the ends of a logarithmic axis: at least three where there are so many, and few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: tuple[float, ...] = ()
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(tenth / 10 for tenth in range(10, 100))):
        found = tuple(step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high)
        if len(found) > 2:
            break
    return found


def _joined(points: Sequence[ChartPoint]) -> tuple[dict[str, Any], ...]:
    """The places of each target's Pareto-optimal points in this picture, the source among them, by x."""
    found = []
    for target in sorted({point.target for point in points if point.shape != SOURCE}):
        group = [point for point in points if point.target in (target, "")]
        best = sorted({(group[index].x, group[index].y) for index in pareto([(p.x, -p.y) for p in group])})
        shade = next(point.colour for point in group if point.target == target)
        found += [{"target": target, "colour": shade, "x": x, "y": y} for x, y in best]
    return tuple(found)
