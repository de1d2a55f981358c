"""The results that a run has so far: a row for each job, a source for each model."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from onnxslim_bert.documents import structured
from onnxslim_bert.errors import DataError
from onnxslim_bert.zoo.conductor import Conductor
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.planning.plan import PlannedJob
from onnxslim_bert.zoo.records import Result, Row, Source, Study, Timing
from onnxslim_bert.zoo.rows import row_of, why_untimed
from onnxslim_bert.zoo.source_files import SourceFiles
from onnxslim_bert.zoo.store.storage import result_name
from onnxslim_bert.zoo.unmeasured import unstudied, untimed

JobTask = tuple[PlannedJob, Task]
At = tuple[str, str]  # a model and a target
Document = TypeVar("Document", Result, Study, Timing)


def results_so_far(
    jobs: Sequence[JobTask],
    contents: Mapping[str, SourceFiles],
    studies: Mapping[str, Task],
    timings: Mapping[At, Task],
    conductor: Conductor,
    *,
    strict: bool,
) -> tuple[tuple[Source, ...], tuple[Row, ...]]:
    """The sources and the rows of run.json, from what the tasks wrote.

    A source is a model as it was given, with its study and its times; where these are missing, with the reason.
    jobs: each with the task that makes its model. contents: the file of each model, studies: the task that studies it,
    by its name. timings: the tasks that time what was made, by model and target; empty until models are made.
    """
    timed = {at: found for at, task in timings.items() if (found := _found(conductor, task, Timing))}
    rows = tuple(
        _row(job, task, timed.get(at_of(job)), timings.get(at_of(job)), conductor, strict) for job, task in jobs
    )
    places = {job.model: job.source for job, _ in jobs}
    times: dict[str, dict[str, Timing]] = {}
    for (model, target), task in timings.items():
        shown = timed.get((model, target)) or untimed(task, conductor.state.known(task.key))
        times.setdefault(model, {})[target] = shown
    sources = tuple(
        Source(
            name,
            places[name],
            content.sha256,
            content.nbytes,
            study=_study(studies[name], conductor) if name in studies else None,
            timings=times.get(name, {}),
        )
        for name, content in contents.items()
    )
    return sources, rows


def at_of(job: PlannedJob) -> At:
    """The model and the target of `job`: jobs with equal ones are timed in one task."""
    return job.model, job.target


def _row(
    job: PlannedJob, task: Task, timing: Timing | None, times: Task | None, conductor: Conductor, strict: bool
) -> Row:
    """The row of `job`, whose model `task` makes; `timing` is what the task `times` measured."""
    state, timed = (conductor.state.known(of.key) if of else None for of in (task, times))
    return row_of(
        job,
        task,
        state,
        _found(conductor, task, Result),
        timing.outputs.get(task.key) if timing else None,
        untimed=why_untimed(timing, timed),
        cached=task.key not in conductor.ran and not (state and state.status == "blocked"),
        strict=strict,
    )


def _study(task: Task, conductor: Conductor) -> Study:
    return _found(conductor, task, Study) or unstudied(task, conductor.state.known(task.key))


def _found(conductor: Conductor, task: Task, kind: type[Document]) -> Document | None:
    """The result that the task wrote, as a `kind`; None when there is none."""
    document = conductor.result(task.key)
    try:
        return None if document is None else structured(kind, document)
    except DataError as error:
        place = f"{conductor.storage.url}/{result_name(task.key)}"
        raise DataError(f"{place}: {error}: delete the folder of that file and run the zoo again") from error
