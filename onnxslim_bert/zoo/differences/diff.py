"""What got better, worse, new or lost between two runs of a zoo."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from onnxslim_bert.wording import plural
from onnxslim_bert.zoo.differences.changes import Aspect, Difference, changes
from onnxslim_bert.zoo.differences.regressions import Finding, Limits, fails_anew, on_changes, on_job, why
from onnxslim_bert.zoo.records import Row, Run, Timing

# In the order in which they are told.
Standing = Literal["newly failing", "missing", "worse", "failing still", "mended", "better", "new", "same"]


@dataclass(frozen=True)
class JobDiff:
    """One job in two runs.

    state: what happened to it, such as "new" or "missing"; "worse" when any aspect is worse, "better" when one is
    better and none worse. notes: remarks, such as that the recipe of this name has changed. changes: the difference in
    each aspect that both runs measured. findings: verdicts on these, and on whether the job is still there.
    """

    model: str
    recipe: str
    target: str
    state: Standing
    notes: tuple[str, ...]
    changes: tuple[Difference, ...]
    findings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.model} {self.recipe} {self.target}"


@dataclass(frozen=True)
class Diff:
    """Two runs of a zoo, compared job by job.

    old, new: the names of the runs. jobs: the most serious first. counts: number of jobs in each state.
    """

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
    """Compare two runs: jobs are paired by model, recipe and target, and each pair is compared.

    A job that still waits, in a run that was interrupted, counts as absent. limits: what a job may lose before it
    fails. names: what the runs are called in the result.
    """
    planned = _rows(new, {})
    before, after = _ended(_rows(old, renamed(old, new))), _ended(planned)
    timings = _timings(old), _timings(new)
    jobs = []
    for key in dict.fromkeys([*before, *after]):
        was, now = before.get(key), after.get(key)
        found = changes(was, now, other_times=_other_times(was, now, *timings)) if was and now else []
        lost = _aspects(was, was) - _aspects(was, now) if was and now and now.result else set()
        where = " ".join(key)
        fate = on_job(where, was, now, limits, waits=key in planned)
        findings = (*fate, *on_changes(where, found, sorted(lost), limits))
        jobs.append(JobDiff(*key, _state(was, now, found, findings), _notes(was, now), tuple(found), findings))
    order = get_args(Standing)
    jobs.sort(key=lambda job: order.index(job.state))
    counts = Counter(job.state for job in jobs)
    return Diff(*names, limits, tuple(jobs), {state: counts[state] for state in order if counts[state]})


Key = tuple[str, str, str]
Timings = Mapping[tuple[str, str], Timing]  # by model and target


def renamed(old: Run, new: Run) -> dict[str, str]:
    """Models that have another name in the new run: {old name: new name}.

    A model is known by its content. Example: two runs hold one file, as "bert" in the old and as "base-bert" in the new
    one, where a second bert.onnx was added and folders had to tell the two apart: {"bert": "base-bert"}. A name that
    both runs have is left alone, whatever its content.
    """
    before, after = ({source.name: source.sha256 for source in run.sources} for run in (old, new))
    added = {sha256: name for name, sha256 in after.items() if name not in before}
    return {name: added[sha256] for name, sha256 in before.items() if name not in after and sha256 in added}


def _rows(run: Run, names: Mapping[str, str]) -> dict[Key, Row]:
    """The rows of a run by model, recipe and target. names: models to be called otherwise, {name: other}."""
    return {(names.get(row.model, row.model), row.recipe, row.target): row for row in run.rows}


def _ended(rows: Mapping[Key, Row]) -> dict[Key, Row]:
    return {key: row for key, row in rows.items() if row.status != "waiting"}


def _aspects(old: Row, new: Row) -> set[Aspect]:
    """What was measured of both."""
    return {change.aspect for change in changes(old, new)}


def _state(old: Row | None, new: Row | None, found: list[Difference], findings: tuple[Finding, ...]) -> Standing:
    if old is None or new is None:
        return "missing" if new is None else "new"
    if fails_anew(old, new):
        return "newly failing"
    ways = {change.way for change in found}
    if any(finding.verdict.outcome == "missed" for finding in findings):  # NaN, too, which is no aspect with a size
        return "worse"
    if old.exit_code:
        return "failing still" if new.exit_code else "mended"
    return "worse" if "worse" in ways else "better" if "better" in ways else "same"


def _notes(old: Row | None, new: Row | None) -> tuple[str, ...]:
    notes = []
    if new is not None and new.exit_code:
        notes.append(why(new))
    if old and new:
        if old.model != new.model:
            notes.append(f"called {old.model} before")
        if old.text != new.text:
            notes.append(f"recipe changed from {old.text}")
        if old.result and new.result:
            before, after = old.result.provenance, new.result.provenance
            if before.source_sha256 != after.source_sha256:
                notes.append("source changed")
    return tuple(notes)


def _other_times(old: Row, new: Row, before: Timings, after: Timings) -> str:
    """Why the times of a job in two runs cannot be compared (another CPU, threads or batch); "" when they can."""
    was, now = _timed_on(old, before), _timed_on(new, after)
    return f"timed on {now}, before on {was}" if was and now and was != now else ""


def _timings(run: Run) -> Timings:
    return {(source.name, target): timing for source in run.sources for target, timing in source.timings.items()}


def _timed_on(row: Row, timings: Timings) -> str:
    """CPU, threads and workload of the times of a job; "" without any."""
    timing = timings.get((row.model, row.target))
    if timing is None or row.timed is None:
        return ""
    latency = row.timed.latency
    return f"{timing.host.cpu}, {plural(timing.threads, 'thread')}, {latency.batch} x {latency.length} tokens"
