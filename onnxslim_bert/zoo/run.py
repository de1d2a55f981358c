"""Run a zoo: what is missing is made, studied and timed; what is there stays."""

import json
import time
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import TypeVar

from onnxslim_bert.output import write_atomically
from onnxslim_bert.report import report_json
from onnxslim_bert.zoo.conductor import Conductor, Watch
from onnxslim_bert.zoo.documents import RUN, STATE, structured
from onnxslim_bert.zoo.engines.task import Engine, Task
from onnxslim_bert.zoo.planning.plan import Plan, Planned
from onnxslim_bert.zoo.publish import check_replaceable, publish
from onnxslim_bert.zoo.records import Result, Row, Run, Source, Study, Timing
from onnxslim_bert.zoo.rows import row_of, why_untimed
from onnxslim_bert.zoo.store.collect_garbage import delete, leftovers
from onnxslim_bert.zoo.store.state import State
from onnxslim_bert.zoo.store.storage import Storage
from onnxslim_bert.zoo.tasks import Tasks
from onnxslim_bert.zoo.unmeasured import unstudied, untimed

Job = tuple[Planned, Task]
Document = TypeVar("Document", Result, Study, Timing)


def run_zoo(
    plan: Plan, out: Path, engine: Engine, *, storage: str | None = None, strict: bool = False, watch: Watch
) -> Run:
    """Bring the folder `out` up to `plan` and say what is in it.

    storage: where artefacts and what is cached go, by default `out`. strict: an inconclusive verdict fails its row.
    One job's end is a row, never the end of the run. Interrupted, or killed, it goes on where it was when it is called
    again. Raises SlimError before anything runs for what the user can mend, OutputError while another run has `out`.
    """
    began = time.monotonic()
    url = storage or str(out)
    place = Storage(url)
    check_replaceable(out)
    out.mkdir(parents=True, exist_ok=True)
    with State(out / STATE) as state, state.lock():
        with place.workspace():  # where it cannot be written, no job could be
            delete(place, leftovers(place))
        tasks = Tasks(state.sha256_of)
        jobs = [(job, tasks.make(job)) for job in plan.jobs]
        sources = {job.model: tasks.source(job) for job in plan.jobs}
        studies = {model: tasks.study(of) for model, of in by_model(plan.jobs).items()} if plan.study else {}
        conductor = Conductor(engine, place, url, state, watch)
        timings: dict[tuple[str, str], Task] = {}
        try:
            conductor.run([*in_turn(jobs), *studies.values()])
            if plan.time:
                timings = timings_of(plan, jobs, tasks, conductor)
                conductor.run(list(timings.values()), alone=True)
        finally:  # interrupted, too
            timed = {at: found for at, task in timings.items() if (found := _found(conductor, task, Timing))}
            rows = [
                _row(job, task, timed.get(at := (job.model, job.target)), timings.get(at), conductor, strict)
                for job, task in jobs
            ]
            given = tuple(
                Source(
                    name,
                    next(job.source for job in plan.jobs if job.model == name),
                    content.sha256,
                    content.nbytes,
                    study=_study(studies[name], conductor) if name in studies else None,
                    timings={
                        target: timed.get((model, target)) or untimed(task, conductor.state.known(task.key))
                        for (model, target), task in timings.items()
                        if model == name
                    },
                )
                for name, content in sources.items()
            )
            run = Run(plan.path.name, given, tuple(rows), time.monotonic() - began, storage or "")
            run = publish(run, out, place)
            write_atomically(out / RUN, [json.dumps(report_json(run), allow_nan=False).encode()], overwrite=True)
    return run


def by_model(jobs: Sequence[Planned]) -> dict[str, list[Planned]]:
    """The jobs of each model, in their order."""
    found: dict[str, list[Planned]] = {}
    for job in jobs:
        found.setdefault(job.model, []).append(job)
    return found


def in_turn(jobs: Sequence[Job]) -> list[Task]:
    """The tasks of the jobs, one of each model in turn: two of one model at once would collect the same statistics."""
    of_models: dict[str, list[Task]] = {}
    for job, task in jobs:
        of_models.setdefault(job.model, []).append(task)
    return [task for task in chain(*zip_longest(*of_models.values())) if task is not None]


def timings_of(plan: Plan, jobs: Sequence[Job], tasks: Tasks, conductor: Conductor) -> dict[tuple[str, str], Task]:
    """By model and target, the task that times what was made."""
    made: dict[tuple[str, str], list[tuple[Planned, Task, str]]] = {}
    for job, task in jobs:
        result = conductor.result(task.key)
        if result is not None:
            made.setdefault((job.model, job.target), []).append((job, task, result["model"]))
    return {at: tasks.time(plan, outputs) for at, outputs in made.items()}


def _row(
    job: Planned, task: Task, timing: Timing | None, times: Task | None, conductor: Conductor, strict: bool
) -> Row:
    """times: the task of `timing`."""
    result = _found(conductor, task, Result)
    return row_of(
        job,
        task,
        conductor.state.known(task.key),
        result,
        timing.outputs.get(task.key) if timing else None,
        untimed=why_untimed(timing, conductor.state.known(times.key) if times else None),
        cached=task.key not in conductor.ran,
        strict=strict,
    )


def _study(task: Task, conductor: Conductor) -> Study:
    return _found(conductor, task, Study) or unstudied(task, conductor.state.known(task.key))


def _found(conductor: Conductor, task: Task, kind: type[Document]) -> Document | None:
    """What the task wrote about itself; None when it did not come so far."""
    document = conductor.result(task.key)
    return None if document is None else structured(kind, document)
