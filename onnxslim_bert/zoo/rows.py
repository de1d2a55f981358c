"""The row of one job: how it ended, what it made, and the verdicts on it."""

from collections.abc import Sequence
from dataclasses import replace

from onnxslim_bert.errors import DataError
from onnxslim_bert.proof.gates import GATES, Verdict
from onnxslim_bert.proof.verdicts import judge
from onnxslim_bert.zoo.conductor import UNENDED
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.planning.plan import PlannedJob
from onnxslim_bert.zoo.records import Result, Row, Timed, Timing
from onnxslim_bert.zoo.store.state import TaskState


def row_of(
    job: PlannedJob,
    task: Task,
    state: TaskState | None,
    result: Result | None,
    timed: Timed | None,
    *,
    untimed: Verdict | None = None,
    cached: bool,
    strict: bool,
) -> Row:
    """The row of `job` in run.json, with its verdicts and the exit code that follows.

    task: makes the job's model; state: how it ended, None when it never ran; result: what it wrote. timed: the times of
    the model; untimed: the verdict on a budget for the speed-up where there are none. cached: nothing of the
    job ran this time. strict: an inconclusive verdict fails the row.
    """
    status = state.status if state and state.status not in UNENDED else "done" if result else "waiting"
    message, code = (state.message, state.exit_code) if state else ("", 0)
    verdicts: tuple[Verdict, ...] = ()
    if status in ("crashed", "timeout", "memory"):
        code = 1
    if result is not None:
        try:
            verdicts = verdicts_on(job, result, timed, untimed)
        except DataError as error:
            message, code = str(error), error.exit_code
        failed = sorted((v for v in verdicts if v.fails(strict)), key=lambda verdict: list(GATES).index(verdict.gate))
        code = GATES[failed[0].gate].exit_code if failed else code
    return Row(
        key=task.key,
        model=job.model,
        recipe=job.recipe,
        target=job.target,
        text=job.text,
        status=status,
        message=message,
        exit_code=code,
        attempts=state.attempts if state else 0,
        cached=cached,
        seconds=state.seconds if state else 0.0,
        cpu_seconds=state.cpu_seconds if state else 0.0,
        peak_bytes=state.peak_bytes if state else 0,
        worker=state.worker if state else "",
        budgets=job.budgets,
        verdicts=verdicts,
        result=result,
        timed=timed,
    )


def verdicts_on(
    job: PlannedJob, result: Result, timed: Timed | None, untimed: Verdict | None = None
) -> tuple[Verdict, ...]:
    """A verdict on every budget of `job`. Raises DataError for one that its data cannot judge."""
    speedup = timed.latency.speedup if timed else None
    sizes = result.output_bytes, result.download_bytes
    verdicts = judge(result.comparison, job.budgets, speedup=speedup, nbytes=sizes[0], download=sizes[1])
    if job.budgets.max_download is not None and result.download_bytes is None:
        verdicts = (*verdicts, Verdict("max-download", "inconclusive", "made by a version that did not measure it"))
    return (*verdicts, untimed) if untimed and not timed and job.budgets.min_speedup is not None else verdicts


def why_untimed(timing: Timing | None, state: TaskState | None) -> Verdict:
    """The verdict on a speed-up that was not measured.

    "inconclusive" when it cannot be measured here (an emulator) or is still to be; "missed" when measuring failed.
    timing, state: what the task that times wrote, and how it ended.
    """
    if timing or state is None or state.status in UNENDED:
        return Verdict("min-speedup", "inconclusive", timing.reason if timing else "not timed yet")
    return Verdict("min-speedup", "missed", f"timing {state.status}: {state.message}")


def verdicts_of(rows: Sequence[Row]) -> list[Verdict]:
    """The verdicts of all rows, each with the name of its job; the first of a job is on whether its model was made."""
    found = []
    for row in rows:
        where = f"{row.model} {row.recipe} {row.target}"
        made = row.status == "done"
        note = "written" if made else f"{row.status}: {row.message}"
        found.append(Verdict("made", "met" if made else "missed", note, where))
        found += [replace(verdict, where=where) for verdict in row.verdicts]
    return found


def exit_code(rows: Sequence[Row]) -> int:
    """The lowest exit code of a failed row, 0 when none failed: a crash (1) goes before a missed budget (3 to 6)."""
    return min((row.exit_code for row in rows if row.exit_code), default=0)
