"""Which changes between two runs fail a release, and with which exit code."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from onnxslim_bert.errors import AccuracyGateError, GateError, LatencyGateError, ProviderError, SizeGateError, SlimError
from onnxslim_bert.proof.gates import GateName, Outcome, Verdict
from onnxslim_bert.wording import plural, si
from onnxslim_bert.zoo.differences.changes import Aspect, Difference
from onnxslim_bert.zoo.records import Row

COVERAGE: GateName = "coverage"  # what a provider runs of a model; the one gate that is for two runs only


@dataclass(frozen=True)
class Limits:
    """How much worse a job may be in a new run than in an old one.

    max_drop: points of the task metric. max_agreement_loss: points of the percentage of rows that are answered as the
    source does; without classes, of the cosine or correlation in percent. max_slowdown: percent of the time that the
    model takes, relative to its source's. max_growth: percent of the file's size. allow_missing: jobs may be missing.
    Any node that a provider no longer runs, and any partition more, fails: for these there is no limit to set.

    Example: max_slowdown=10: from 2.0 to 1.9 times the source's speed is a loss of 5 %, within it; to 1.7 it is 18 %.
    """

    max_drop: float = 0.5
    max_agreement_loss: float = 1.0
    max_slowdown: float = 10.0
    max_growth: float = 1.0
    allow_missing: bool = False


class CrashedError(SlimError):
    """A job crashed, or was stopped at a limit."""

    exit_code = 1


ERRORS: dict[int, type[SlimError]] = {
    error.exit_code: error
    for error in (CrashedError, GateError, AccuracyGateError, LatencyGateError, ProviderError, SizeGateError)
}
NAMED = 3  # failed verdicts that a message holds


class Held(NamedTuple):
    """The limit of an aspect: the gate that it belongs to, its value and unit, and the exit code when it is passed."""

    gate: GateName
    limit: float
    unit: str
    exit_code: int


@dataclass(frozen=True)
class Finding:
    """A verdict on a job, and the exit code that it would fail with."""

    verdict: Verdict
    exit_code: int


def held(limits: Limits) -> dict[Aspect, Held]:
    """What each aspect is held to."""
    return {
        "metric": Held("max-drop", limits.max_drop, " points", AccuracyGateError.exit_code),
        "agreement": Held("min-agreement", limits.max_agreement_loss, " %", AccuracyGateError.exit_code),
        "speed-up": Held("min-speedup", limits.max_slowdown, " %", LatencyGateError.exit_code),
        "nodes": Held(COVERAGE, 0.0, " %", ProviderError.exit_code),
        "pieces": Held(COVERAGE, 0.0, "", ProviderError.exit_code),
        "size": Held("max-size", limits.max_growth, " %", SizeGateError.exit_code),
    }


def on_job(where: str, old: Row | None, new: Row | None, limits: Limits, waits: bool = False) -> Iterator[Finding]:
    """Findings on the job as a whole: it is missing, it fails now, or more rows than before are answered with NaN.

    old, new: the job in either run; None where a run does not have it. waits: the new run has the job in its plan, but
    was interrupted before it ran.
    """
    if old is None:
        return
    if new is None:
        if not (old.exit_code or limits.allow_missing):
            note = "not done yet: the new run was interrupted" if waits else "not in the new run"
            yield Finding(Verdict("made", "missed", note, where), GateError.exit_code)
        return
    if fails_anew(old, new):
        how = "makes no model any more" if old.exit_code else "fails now, and did not"
        verdict = Verdict("made", "missed", f"{how}: {why(new)}", where)
        yield Finding(verdict, new.exit_code or GateError.exit_code)
    elif not old.exit_code:
        yield Finding(Verdict("made", "met", "done", where), GateError.exit_code)
    before, after = (row.result.comparison if row.result else None for row in (old, new))
    if before and after and after.broken > before.broken:
        note = f"NaN or infinite outputs on {after.broken} of {plural(after.rows, 'row')}, {before.broken} before"
        yield Finding(Verdict("finite", "missed", note, where), AccuracyGateError.exit_code)


def fails_anew(old: Row, new: Row) -> bool:
    """Whether a job failed only in the new run, or made a model only in the old one."""
    return bool(new.exit_code and not old.exit_code) or (old.result is not None and new.result is None)


def on_changes(where: str, changes: Iterable[Difference], lost: Iterable[Aspect], limits: Limits) -> Iterator[Finding]:
    """A finding on every aspect: within its limit or not. lost: aspects that the new run did not measure."""
    for change in changes:
        gate, limit, unit, code = held(limits)[change.aspect]
        loss = change.loss
        ends = f" ({loss.low:.3g} to {loss.high:.3g})" if loss.low < loss.high else ""
        seen = [si(x, "B") if change.aspect == "size" else f"{x:.4g}" for x in (change.old, change.new)]
        note = f"{change.aspect} {seen[0]} -> {seen[1]}, worse by {loss.value:.3g}{unit}{ends}, "
        note += f"wanted at most {limit:g}{unit}" + (f"; {change.open}" if change.open else "")
        yield Finding(Verdict(gate, _outcome(change, limit), note, where), code)
    for aspect in lost:
        gate, _, _, code = held(limits)[aspect]
        yield Finding(Verdict(gate, "inconclusive", f"{aspect} was measured before, and is not now", where), code)


def check(findings: Iterable[Finding], strict: bool = False) -> None:
    """Raise the error of the finding that fails with the lowest exit code: a crash (1) before a larger file (6)."""
    failed = sorted((found for found in findings if found.verdict.fails(strict)), key=lambda found: found.exit_code)
    if failed:
        more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        error = ERRORS.get(failed[0].exit_code, GateError)
        raise error("; ".join(str(found.verdict) for found in failed[:NAMED]) + more)


def why(row: Row) -> str:
    """Why a job fails its run."""
    missed = [verdict for verdict in row.verdicts if verdict.outcome != "met"]
    return row.message or "; ".join(map(str, missed)) or row.status


def _outcome(change: Difference, limit: float) -> Outcome:
    """The verdict on a loss with an interval.

    Met when the whole interval is within the limit. Missed when the loss is above the limit and its interval above 0,
    so that chance does not explain it. Else inconclusive, as when the two cannot be compared.
    """
    if change.open:
        return "inconclusive"
    if change.loss.high <= limit:
        return "met"
    return "missed" if change.way == "worse" and change.loss.value > limit else "inconclusive"
