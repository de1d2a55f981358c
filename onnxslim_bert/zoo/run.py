"""Run a zoo: make, study and time what has no result yet, keep the results that are there, and write run.json."""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from pathlib import Path

from onnxslim_bert.errors import StorageError
from onnxslim_bert.graph.files import write_atomically
from onnxslim_bert.proof.documents import report_json
from onnxslim_bert.zoo.conductor import Conductor, RunListener
from onnxslim_bert.zoo.documents import RUN, STATE
from onnxslim_bert.zoo.engines.task import Engine, Task
from onnxslim_bert.zoo.planning.plan import PlannedJob, ZooPlan
from onnxslim_bert.zoo.publish import check_replaceable, publish
from onnxslim_bert.zoo.records import Run
from onnxslim_bert.zoo.results_so_far import At, JobTask, at_of, results_so_far
from onnxslim_bert.zoo.store.collect_garbage import delete, leftovers
from onnxslim_bert.zoo.store.state import RunState
from onnxslim_bert.zoo.store.storage import Storage, absolute
from onnxslim_bert.zoo.tasks import Tasks


def run_zoo(
    plan: ZooPlan, out: Path, engine: Engine, *, storage: str | None = None, strict: bool = False, watch: RunListener
) -> Run:
    """Run the jobs of `plan` that have no result in `out` yet; returns the whole run, which run.json holds, too.

    A job that fails becomes a failed row; the others go on. When the run is interrupted or killed, calling this again
    goes on where it was. engine: where tasks run. storage: path or URL where results and cached arrays are kept, by
    default `out`. strict: an inconclusive verdict fails its row. watch: told of what happens.

    Raises SlimError before anything runs for what the user can mend, OutputError while another run uses `out`.
    """
    began = time.monotonic()
    storage = absolute(os.path.expanduser(storage)) if storage else ""  # noqa: PTH111 (a Path would spoil a URL)
    url = storage or str(out)
    place = Storage(url)
    check_replaceable(out)
    place.check_writable()  # or every job would find out at its end
    out.mkdir(parents=True, exist_ok=True)
    with RunState(out / STATE) as state, state.lock():
        for left in leftovers(place):
            with suppress(StorageError):  # of another user; it is in nobody's way
                delete(place, [left])
        tasks = Tasks(state.sha256_of, engine.executes)
        jobs = [(job, tasks.make(job)) for job in plan.jobs]
        sources = {job.model: tasks.source(job) for job in plan.jobs}
        studies = {model: tasks.study(of) for model, of in by_model(plan.jobs).items()} if plan.study else {}
        conductor = Conductor(engine, place, url, state, watch)
        timings: dict[At, Task] = {}
        interrupted = True
        try:
            conductor.run([*in_turn(jobs), *studies.values()])
            if plan.time:
                timings = timings_of(plan, jobs, tasks, conductor)
                conductor.run(list(timings.values()), alone=True)
            interrupted = False
        finally:
            given, rows = results_so_far(jobs, sources, studies, timings, conductor, strict=strict)
            run = Run(plan.path.name, given, rows, time.monotonic() - began, storage, interrupted)
            try:
                run = publish(run, out, place)
            finally:  # it says where the artefacts are, and whether they have names
                write_atomically(out / RUN, [json.dumps(report_json(run), allow_nan=False).encode()], overwrite=True)
    return run


def by_model(jobs: Sequence[PlannedJob]) -> dict[str, list[PlannedJob]]:
    """The jobs of each model, in their order."""
    found: dict[str, list[PlannedJob]] = {}
    for job in jobs:
        found.setdefault(job.model, []).append(job)
    return found


def in_turn(jobs: Sequence[JobTask]) -> list[Task]:
    """The tasks of the jobs, ordered so that neighbours are of different models where they can be.

    Two tasks of one model at once would both collect the same statistics; later ones find them cached.
    Example: tasks a1, a2, a3 of model a and b1 of model b: a1, b1, a2, a3.
    """
    of_models: dict[str, list[Task]] = {}
    for job, task in jobs:
        of_models.setdefault(job.model, []).append(task)
    return [task for task in chain(*zip_longest(*of_models.values())) if task is not None]


def timings_of(plan: ZooPlan, jobs: Sequence[JobTask], tasks: Tasks, conductor: Conductor) -> dict[At, Task]:
    """By model and target, the task that times what was made."""
    made: dict[At, list[tuple[PlannedJob, Task, str]]] = {}
    for job, task in jobs:
        result = conductor.result(task.key)
        if result is not None:
            made.setdefault(at_of(job), []).append((job, task, result["model"]))
    return {at: tasks.time(plan, outputs) for at, outputs in made.items()}
