"""What got better, worse, new or lost between two runs of a zoo."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from onnxslim_bert.inspection.wording import plural
from onnxslim_bert.zoo.differences.changes import Aspect, Change, changes
from onnxslim_bert.zoo.differences.regressions import Finding, Limits, on_changes, on_job, why
from onnxslim_bert.zoo.records import Row, Run

# In the order in which they are told.
State = Literal["newly failing", "missing", "worse", "failing still", "mended", "better", "new", "same"]


@dataclass(frozen=True)
class JobDiff:
    """One job, by its names, in two runs.

    state: "worse" where any aspect is, "better" where one is and none is worse. notes: what else is to be known, such
    as another recipe of that name. findings: the changes held to limits.
    """

    model: str
    recipe: str
    target: str
    state: State
    notes: tuple[str, ...]
    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.model} {self.recipe} {self.target}"


@dataclass(frozen=True)
class Diff:
    """Two runs, compared. old, new: what they are called. jobs: the most serious states first. counts: by state."""

    old: str
    new: str
    limits: Limits
    jobs: tuple[JobDiff, ...]
    counts: dict[str, int]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all jobs."""
        return tuple(finding for job in self.jobs for finding in job.findings)

    @property
    def summary(self) -> str:
        """One line."""
        states = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        return f"{plural(len(self.jobs), 'job')}: {states}" if self.jobs else "no jobs"


def diff(old: Run, new: Run, limits: Limits, names: tuple[str, str] = ("old", "new")) -> Diff:
    """Pair the jobs of two runs by model, recipe and target, and compare each pair. A job that waits is not there."""
    before, after = _ended(old), _ended(new)
    jobs = []
    for key in dict.fromkeys([*before, *after]):
        was, now = before.get(key), after.get(key)
        found = changes(was, now, other_host=_other_host(old, new, key)) if was and now else []
        lost = _aspects(was, was) - _aspects(was, now) if was and now and now.result else set()
        where = " ".join(key)
        findings = (*on_job(where, was, now, limits), *on_changes(where, found, sorted(lost), limits))
        jobs.append(JobDiff(*key, _state(was, now, found, findings), _notes(was, now), tuple(found), findings))
    order = get_args(State)
    jobs.sort(key=lambda job: order.index(job.state))
    counts = Counter(job.state for job in jobs)
    return Diff(*names, limits, tuple(jobs), {state: counts[state] for state in order if counts[state]})


Key = tuple[str, str, str]


def _ended(run: Run) -> dict[Key, Row]:
    return {(row.model, row.recipe, row.target): row for row in run.rows if row.status != "waiting"}


def _aspects(old: Row, new: Row) -> set[Aspect]:
    """What was measured of both."""
    return {change.aspect for change in changes(old, new)}


def _state(old: Row | None, new: Row | None, found: list[Change], findings: tuple[Finding, ...]) -> State:
    if old is None or new is None:
        return "missing" if new is None else "new"
    if old.exit_code or new.exit_code:
        return "mended" if not new.exit_code else "failing still" if old.exit_code else "newly failing"
    ways = {change.way for change in found}
    fails = any(finding.verdict.outcome == "missed" for finding in findings)  # NaN is no aspect that has a size
    return "worse" if fails or "worse" in ways else "better" if "better" in ways else "same"


def _notes(old: Row | None, new: Row | None) -> tuple[str, ...]:
    notes = []
    if new is not None and new.exit_code:
        notes.append(why(new))
    if old and new:
        if old.text != new.text:
            notes.append(f"recipe changed from {old.text}")
        if old.result and new.result:
            before, after = old.result.provenance, new.result.provenance
            if before.source_sha256 != after.source_sha256:
                notes.append("source changed")
    return tuple(notes)


def _other_host(old: Run, new: Run, key: Key) -> str:
    """That the times of a job are of two kinds of CPU, "" when they are of one."""
    cpus = [_cpu(run, key) for run in (old, new)]
    return f"timed on {cpus[1]}, before on {cpus[0]}" if None not in cpus and cpus[0] != cpus[1] else ""


def _cpu(run: Run, key: Key) -> str | None:
    model, _, target = key
    timings = next((source.timings for source in run.sources if source.name == model), {})
    return timings[target].host.cpu if target in timings else None
