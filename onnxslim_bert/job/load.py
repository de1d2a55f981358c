"""The first step of a job: everything that can be refused before any work is done."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.splitting import check_disjoint
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError, ModelError, OutputError, PassError
from onnxslim_bert.graph.claims import remove_dead
from onnxslim_bert.graph.files import check_output, file_sha256, model_files
from onnxslim_bert.job.data import HELD_BACK, Data, Sources
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.lengths import check_place
from onnxslim_bert.job.rewrite_tokenizer import TOKENIZER
from onnxslim_bert.job.rows import canonical_form, check_enough, fitted
from onnxslim_bert.job.step_files import check_steps
from onnxslim_bert.model.input_roles import roles_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.proof.comparison import task_metrics
from onnxslim_bert.proof.documents import report_path
from onnxslim_bert.proof.evaluate_once import evaluate_once
from onnxslim_bert.recipes.recipe import Recipe

FEWEST = 2  # rows to calibrate on


@dataclass(frozen=True)
class Loaded:
    """A job that was read and checked: its files, rows and options fit each other.

    sha256: of the source file and its external data, as they were read. model: the source. canonical: the source after
    `canonicalize`; None for a job without rows and times, whose recipe may be for graphs that hold no encoder.
    data: the rows. unjudged: why the rows held back of a calibration file do not judge; "" where they do. working: that
    of the job, with its tokenizer, and with `max_length` lowered to the positions that the model has or the length that
    the recipe fixes.
    """

    job: Job
    sha256: str
    model: Model
    canonical: Model | None
    data: Data
    working: Working
    unjudged: str = ""


def load(job: Job) -> Loaded:
    """Read the model and the rows of a job, and refuse, before any work, what can be known to fail.

    Raises OutputError for an output that exists or cannot be written; DataError for rows that are both calibrated and
    evaluated on, fewer than FEWEST calibration rows, labels out of range, a tokenizer that is larger than the model's
    vocabulary, or a budget without the rows that it is held against; ModelError or PassError for a source that is no
    model, or none that such rows can be fed to.
    """
    check_free(job)
    if isinstance(job.data, Sources) and job.data.calibration is not None:
        _check_used(job.recipe)
    data, working = _read(job)
    job.gate.check(data.evaluation)
    if data.calibration is not None and len(data.calibration) < FEWEST:
        rows = f"'{data.calibration.name}' has {len(data.calibration)} row"
        raise DataError(f"{rows} to calibrate on: the ranges of one text serve no other; give at least {FEWEST}")
    if data.calibration is not None and data.evaluation is not None:
        check_disjoint(data.calibration, data.evaluation)
    if job.rewrite_tokenizer:
        reader = working.tokenizer
        inputs = [reader.file] if reader is not None and reader.file is not None else []
        check_output(job.output.parent / TOKENIZER, overwrite=job.overwrite, inputs=inputs)
    sha256 = source_sha256(job.source)
    model, canonical = Model.load(job.source), None
    if data.calibration is not None:
        check_enough(model, data.calibration)
    if data.calibration is not None or data.evaluation is not None or job.times or job.steps is not None:
        with suppress(DataError):  # of ready inputs; texts that cannot be fed are refused where they are
            roles_of(job.source, threads=working.threads)
        canonical = canonical_form(model)
        longest = max(job.deployment.seq, default=job.recipe.shape[1] or working.max_length)
        working = fitted(replace(working, max_length=min(working.max_length, longest)), canonical)
    if data.calibration is None:
        _check_missing(job.recipe, canonical or model)
    data, unjudged = _judging(job, data, working)
    return Loaded(job, sha256, model, canonical, data, working, unjudged)


def source_sha256(source: Path) -> str:
    """sha256 in hexadecimal of the model file and its external data."""
    return file_sha256(*model_files(source))


def check_unchanged(loaded: Loaded) -> None:
    """Raise ModelError when the source is no longer the file that was read."""
    try:
        unchanged = source_sha256(loaded.job.source) == loaded.sha256
    except (ModelError, OSError):
        unchanged = False
    if not unchanged:
        raise ModelError(f"{loaded.job.source} changed while it was worked on; nothing was written: run it again")


def check_free(job: Job) -> None:
    """Raise OutputError when an output of the job exists and may not be replaced, or cannot be written.

    First, what a killed job left half written there is taken back.
    """
    if job.steps is not None:
        check_steps(job.steps)
    remove_dead(Path(os.path.realpath(job.output)).parent)
    beside = [report_path(job.output)] if job.report else []
    if len(job.deployment.seq) < 2:
        check_outputs(job.source, [job.output, *beside], overwrite=job.overwrite, in_place=job.in_place)
        return
    if job.in_place:
        raise OutputError("several lengths make a folder of files, which cannot replace the model; give -o FOLDER")
    check_place(job.output, job.overwrite)
    for path in beside:
        check_output(path, overwrite=job.overwrite, inputs=model_files(job.source))


def check_outputs(source: Path, outputs: Sequence[Path], *, overwrite: bool, in_place: bool) -> None:
    """Raise OutputError when an output cannot be written, exists without `overwrite`, or is a file of the source.

    in_place: the source's own file may be replaced, but not its external data.
    """
    files = model_files(source)
    if len(set(outputs)) < len(outputs):
        raise OutputError(f"{outputs[0]} is the name of its own report; give one that ends in .onnx")
    for output in outputs:
        replaces = in_place and output == source
        check_output(output, overwrite=overwrite or replaces, inputs=files[1:] if replaces else files)


def check_labels(source: Path, evaluation: Dataset, working: Working) -> None:
    """Raise DataError now, from the answer to one row, for labels that evaluation could not use in the end."""
    task_metrics(evaluate_once(source, evaluation.probe(), working), evaluation)


def _judging(job: Job, data: Data, working: Working) -> tuple[Data, str]:
    """`data` with evaluation rows that can judge, and "" or why those that nobody named cannot and are left out.

    Raises DataError or ModelError for named rows that cannot, or where a budget needs them.
    """
    if data.evaluation is None:
        return data, ""
    try:
        check_labels(job.source, data.evaluation, working)
    except (DataError, ModelError) as error:
        if data.evaluation.split != HELD_BACK or job.gate.budgets.judges_rows:
            raise
        return replace(data, evaluation=None), str(error)
    return data, ""


def _read(job: Job) -> tuple[Data, Working]:
    if isinstance(job.data, Data):
        return job.data, job.working
    data, tokenizer = job.data.read(job.source, job.working.seed)
    return data, replace(job.working, tokenizer=tokenizer, inputs=job.data.inputs)


def _check_used(recipe: Recipe) -> None:
    """Raise DataError when no pass reads calibration rows."""
    if not recipe.wants_calibration:
        raise DataError(f"--calib does nothing: no pass of {recipe} reads calibration texts")


def _check_missing(recipe: Recipe, model: Model) -> None:
    """Raise DataError for the first pass that will want calibration rows, as far as that can be seen of `model`."""
    for name in _calibrated(recipe, model):
        raise DataError(f"{name} needs calibration data; name some with --calib")


def _calibrated(recipe: Recipe, model: Model) -> Iterator[str]:
    for step in recipe.steps:
        with suppress(ModelError, PassError):  # a pass before it may bring the graph into the form that it needs
            if step.action.measures or any(True for _ in step.action.wants(model)):
                yield step.action.name
