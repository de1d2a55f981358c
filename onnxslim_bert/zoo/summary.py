"""A run in the terminal: how it ended, a table for each model, what went wrong."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnxslim_bert.errors import as_line
from onnxslim_bert.zoo.page.quality import Scale, quality_of
from onnxslim_bert.zoo.page.trades import (
    Trade,
    headline,
    optimal,
    outcome,
    shortfalls,
    speedup,
    trades,
    untimed,
    without_result,
)
from onnxslim_bert.zoo.page.wording import DASH, MINUS, TIMES, fixed, megabytes, ratio
from onnxslim_bert.zoo.records import Row, Run

PADDING = (0, 2, 0, 0)
NARROW = 90  # columns below which a table has only what decides
ASCII = str.maketrans({TIMES: "x", MINUS: "-", DASH: "-"})
TONES = {"done": "green", "waiting": "yellow"}


def summary(run: Run, width: int) -> RenderableType:
    """The run for a terminal of `width` columns: headline, a table for each model, failures and missed budgets."""
    return Group(*_parts(run, width))


def _text(value: str, style: str = "") -> Text:
    """What any terminal can show and none obeys: signs are shown as ASCII."""
    return Text(as_line(value.translate(ASCII)), style)


def _parts(run: Run, width: int) -> Iterator[RenderableType]:
    yield _text(headline(run), "bold")
    if without_result(run):
        yield _text(without_result(run))
    for trade in trades(run):
        yield Text()
        yield _text(trade.source.name, "bold") + _text(f"  {megabytes(trade.source.nbytes)} MB")
        yield _table(trade, wide=width >= NARROW)
        yield from map(_text, _advice(trade))
    yield Text()
    yield _text("* no other job on its target is smaller, faster and closer to the source at once", "dim")
    for sentence in untimed(run):
        yield _text(" ".join(sentence.split()), "dim")
    lacking = list(shortfalls(run))
    if lacking:
        yield Text()
        yield _text(f"Without a result or over budget: {len(lacking)}", "bold")
    for row, reason in lacking:
        yield _text(f"  {row.model} {row.recipe} {row.target}: {' '.join(reason.split())}")


def _table(trade: Trade, wide: bool) -> Table:
    """One row for each job; no markup is read in what it says."""
    scale = trade.scale
    headers = ["", "recipe", "target", "outcome", "MB", "faster", scale.unit if scale else "quality"]
    more = ["95 % interval", "smaller", "ms", "nodes"] if wide else []
    table = Table(box=None, padding=PADDING)
    for header in [*headers, *more]:
        table.add_column(_text(header), justify="right" if header in (*headers[4:], *more) else "left", no_wrap=wide)
    best = optimal(trade)
    for row in trade.rows:
        end = outcome(row)
        words = ("*" if row.key in best else "", row.recipe, row.target)
        numbers = [*_numbers(row, scale), *(_details(row, scale) if wide else ())]
        table.add_row(*map(_text, words), _text(end, TONES.get(end, "red")), *map(_text, numbers))
    return table


def _numbers(row: Row, scale: Scale | None) -> Iterator[str]:
    quality = quality_of(row, scale)
    yield megabytes(row.result.output_bytes if row.result else None)
    yield ratio(speedup(row))
    yield scale.written(quality.value) if quality and scale else DASH


def _details(row: Row, scale: Scale | None) -> Iterator[str]:
    """What a wide terminal has besides."""
    result, latency = row.result, row.timed.latency if row.timed else None
    quality = quality_of(row, scale)
    has_ends = quality is not None and quality.low < quality.high
    yield f"{scale.written(quality.low)} to {scale.written(quality.high)}" if has_ends and quality and scale else DASH
    yield ratio(result.source_bytes / result.output_bytes if result and result.output_bytes else None)
    yield fixed(latency.median_ms if latency else None)
    yield f"{result.placement.taken}/{result.placement.total}" if result and result.placement else DASH


def _advice(trade: Trade) -> Iterator[str]:
    """Which job to take."""
    if trade.fastest:
        yield f"fastest that loses nothing measurable: {trade.fastest.recipe} {trade.fastest.target}"
    if trade.smallest:
        yield f"smallest within its budgets: {trade.smallest.recipe} {trade.smallest.target}"
