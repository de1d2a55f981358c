"""The table of all jobs in the report: the text of each cell, and the value that its column is sorted by."""

from collections.abc import Iterable
from dataclasses import dataclass

from onnxslim_bert.zoo.page.quality import Scale, quality_of
from onnxslim_bert.zoo.page.trades import Trade, optimal, outcome, speedup
from onnxslim_bert.zoo.page.wording import DASH, fixed, megabytes, ratio
from onnxslim_bert.zoo.records import Row

WORDS = ("Model", "Recipe", "Target", "Outcome")
NUMBERS = (
    "File, MB",
    "Smaller",
    "Latency, ms",
    "Faster",
    "Quality",
    "Unit, 95 % interval",
    "Agreement, %",
    "On target, %",
    "CPU, s",
)
Key = str | float | None


@dataclass(frozen=True)
class Line:
    """One job, as a line of the table.

    number: its place in the run. numbers: the texts below the headings NUMBERS; () where no model was made, and then
    `reason` says why. keys: for each column the value that it is sorted by. tone: the colour of the outcome: "good",
    "open" or "bad". best: whether it is optimal (`trades.optimal`) among the jobs of its model and target.
    """

    number: int
    row: Row
    outcome: str
    tone: str
    best: bool
    reason: str
    numbers: tuple[str, ...]
    keys: tuple[Key, ...]


def lines(found: Iterable[Trade]) -> list[Line]:
    """One for each job, in the order of the models."""
    made: list[Line] = []
    for trade in found:
        best = optimal(trade)
        made += [_line(len(made) + at, row, trade.scale, row.key in best) for at, row in enumerate(trade.rows)]
    return made


def _line(number: int, row: Row, scale: Scale | None, best: bool) -> Line:
    end = outcome(row)
    tone = {"done": "good", "waiting": "open"}.get(end, "bad")
    words = (row.model, row.recipe, row.target, end)
    if row.result is None:
        return Line(
            number, row, end, tone, False, row.message, (), (*words, *[None] * (len(NUMBERS) - 1), row.cpu_seconds)
        )
    result, compared, placed = row.result, row.result.comparison, row.result.placement
    quality = quality_of(row, scale)
    agreement = compared.fidelity.agreement if compared else None
    latency = row.timed.latency.median_ms if row.timed else None
    smaller = result.source_bytes / result.output_bytes if result.output_bytes else None
    share = 100 * placed.share if placed else None
    texts = (
        megabytes(result.output_bytes),
        ratio(smaller),
        fixed(latency, 2),
        ratio(speedup(row)),
        scale.written(quality.value) if quality and scale else DASH,
        scale.spread(quality) if quality and scale else "",
        fixed(agreement.value if agreement else None, 2),
        fixed(share, 1),
        fixed(row.cpu_seconds, 0),
    )
    change = quality.value - scale.source if quality and scale else None
    keys = (
        *(float(result.output_bytes), smaller, latency, speedup(row), change, change),
        *(agreement.value if agreement else None, share, row.cpu_seconds),
    )
    return Line(number, row, end, tone, best, "", texts, (*words, *keys))
