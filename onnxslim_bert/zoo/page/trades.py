"""What a run comes to: how the jobs ended, which budgets were missed, and the job to take of each model."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from onnxslim_bert.proof.gates import Budgets
from onnxslim_bert.wording import plural
from onnxslim_bert.zoo.page.pareto import pareto
from onnxslim_bert.zoo.page.quality import Scale, loses_nothing, quality_of, scale_of
from onnxslim_bert.zoo.records import Row, Run, Source

WORDS = {
    "done": "done",
    "failed": "failed",
    "crashed": "crashed",
    "timeout": "out of time",
    "memory": "out of memory",
    "blocked": "blocked",
    "waiting": "waiting",
}
MISSED = "budget missed"
ALWAYS = ("made", "finite")  # what every job is held to, without a budget


@dataclass(frozen=True)
class Trade:
    """One model with its jobs, and the two to take of them; None where no job is done, timed or judged.

    fastest: the fastest of the jobs without a measurable loss. smallest: the smallest of the jobs that miss no budget.
    """

    source: Source
    rows: tuple[Row, ...]
    scale: Scale | None
    fastest: Row | None
    smallest: Row | None

    @property
    def done(self) -> int:
        """How many jobs made a model."""
        return sum(row.status == "done" for row in self.rows)


def trades(run: Run) -> list[Trade]:
    """One for each model, in the order of the run."""
    rows: dict[str, list[Row]] = {}
    for row in run.rows:
        rows.setdefault(row.model, []).append(row)
    return [_trade(source, tuple(rows.get(source.name, ()))) for source in run.sources]


def _trade(source: Source, rows: tuple[Row, ...]) -> Trade:
    compared = [row.result.comparison for row in rows if row.result and row.result.comparison]
    kept = [(row, row.result.output_bytes) for row in rows if row.result and not missed(row)]
    gains = [(row, gain) for row, _ in kept if _unharmed(row) and (gain := speedup(row))]
    return Trade(
        source,
        rows,
        scale_of(compared),
        max(gains, key=itemgetter(1), default=(None, 0))[0],
        min(kept, key=itemgetter(1), default=(None, 0))[0],
    )


def _unharmed(row: Row) -> bool:
    comparison = row.result.comparison if row.result else None
    return comparison is not None and loses_nothing(comparison) is True


def speedup(row: Row) -> float | None:
    """The source's time over that of what the job made, on its target."""
    value = row.timed.latency.speedup.value if row.timed else math.nan
    return value if math.isfinite(value) else None


def missed(row: Row) -> list[str]:
    """The reasons, in words, why a job that is done fails the run.

    A budget that is missed, one that is inconclusive where that fails the run, or one that could not be judged.
    """
    if row.status != "done":
        return []
    found = [str(verdict) for verdict in row.verdicts if verdict.outcome == "missed"]
    if found or not row.exit_code:
        return found
    undecided = [str(verdict) for verdict in row.verdicts if verdict.outcome == "inconclusive"]
    return [row.message] if row.message else undecided


def outcome(row: Row) -> str:
    """How the job ended, in a word or two."""
    return MISSED if missed(row) else WORDS.get(row.status, row.status)


def headline(run: Run) -> str:
    """The whole run in one sentence."""
    done, models = sum(row.status == "done" for row in run.rows), len({row.model for row in run.rows})
    text = f"{done} of {plural(len(run.rows), 'job')} on {plural(models, 'model')} done; {budgets(run.rows)}."
    return f"{text} The run was interrupted." if run.interrupted else text


def without_result(run: Run) -> str:
    """How the jobs ended that made nothing, in one sentence; "" where there is none."""
    ends = Counter(WORDS.get(row.status, row.status) for row in run.rows if row.status != "done")
    return f"Without a result: {', '.join(f'{count} {end}' for end, count in ends.items())}." if ends else ""


def budgets(rows: Sequence[Row]) -> str:
    """How many budgets were missed, or cannot be decided by so few evaluation rows."""
    verdicts = Counter(verdict.outcome for row in rows for verdict in row.verdicts)
    held = any(verdict.gate not in ALWAYS for row in rows for verdict in row.verdicts)
    if not held and not verdicts["missed"]:
        return "no budget was held" if any(row.budgets != Budgets() for row in rows) else "no budgets were set"
    open_ones = f", {verdicts['inconclusive']} inconclusive" if verdicts["inconclusive"] else ""
    if not verdicts["missed"]:
        return f"no budget missed{open_ones}"
    return f"{plural(verdicts['missed'], 'budget')} missed{open_ones}"


def shortfalls(run: Run) -> Iterator[tuple[Row, str]]:
    """Every job that has no result or missed a budget, with the reason in one line."""
    for row in run.rows:
        if row.status != "done":
            yield row, row.message or WORDS.get(row.status, row.status)
        for reason in missed(row):
            yield row, reason


def untimed(run: Run) -> list[str]:
    """Why times are missing, one sentence for each target and reason."""
    models: dict[tuple[str, str], list[str]] = {}
    for source in run.sources:
        for target, timing in source.timings.items():
            if timing.reason:
                models.setdefault((target, timing.reason), []).append(source.name)
    return [
        f"No times on {target} for {names[0] if len(names) == 1 else plural(len(names), 'model')}: {reason}"
        for (target, reason), names in models.items()
    ]


def optimal(trade: Trade) -> set[str]:
    """The keys of the Pareto-optimal jobs: no other of the model on the same target beats them (`pareto`).

    Compared are size, latency and quality; jobs without times are compared with each other in size and quality.
    """
    found: set[str] = set()
    for target in {row.target for row in trade.rows}:
        costs = {row.key: cost for row in trade.rows if row.target == target and (cost := _cost(row, trade.scale))}
        for timed in (True, False):
            group = {key: cost for key, cost in costs.items() if (len(cost) == 3) is timed}
            keys = list(group)
            found |= {keys[index] for index in pareto(list(group.values()))}
    return found


def _cost(row: Row, scale: Scale | None) -> tuple[float, ...] | None:
    quality = quality_of(row, scale)
    if row.result is None or quality is None:
        return None
    latency = (row.timed.latency.median_ms,) if row.timed else ()
    return (float(row.result.output_bytes), -quality.value, *latency)
