"""A search as a job: prepare its rows and its folder, search, and run the job with the recipe that was found."""

import hashlib
import json
from dataclasses import asdict, replace

import onnxruntime

from onnxslim_bert import __version__
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.errors import DataError, GateError
from onnxslim_bert.graph.files import file_sha256, staging
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.load import Loaded, check_free, load
from onnxslim_bert.job.main_recipe import main_recipe
from onnxslim_bert.job.report import Report
from onnxslim_bert.job.rows import fixed_shape, make_trials
from onnxslim_bert.job.run import run_in
from onnxslim_bert.job.search.costs import TimingConditions
from onnxslim_bert.job.search.frontier import SearchResult
from onnxslim_bert.job.search.search import Search
from onnxslim_bert.job.search.search_folder import SearchFolder
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.job.search.task_drop import TaskDrop
from onnxslim_bert.model.dense import dense_layers
from onnxslim_bert.recipes.recipe import Recipe

JUDGED = 1024  # rows, in no calibration, on which the task metric of candidates is measured
LENGTH = 128  # tokens in the rows on which models are timed, at most


def run_search(job: Job, targets: Targets, batch: int = 1) -> Report:
    """Search for the recipe that reaches `targets` at the least damage, and run `job` with it.

    `job.recipe` is not read. batch: rows in a run when models are timed. What the search measures is kept in a folder
    beside the output, OUTPUT.search without the output's suffix, until the model is written: run again after it was
    stopped, or with other targets, the search measures none of it again.

    Raises a GateError when the targets are out of reach, another SlimError for what the user can mend.
    """
    if job.data.calibration is None:
        raise DataError("a search measures on calibration texts: --calib sst2, reviews or a file")
    check_free(job)
    with staging(job.output) as folder:
        found, state = find_recipe(load(replace(job, recipe=main_recipe(), timing=True)), targets, batch)
        report = run_in(folder, replace(job, recipe=Recipe.parse(found.chosen.recipe)), found)
    state.remove()
    return report


def find_recipe(loaded: Loaded, targets: Targets, batch: int) -> tuple[SearchResult, SearchFolder]:
    """Search for `targets`: what was measured, with the chosen recipe, and the folder in which it is kept.

    Raises PassError for a model that is not float32, a GateError when the targets are out of reach.
    """
    job, working, canonical = loaded.job, loaded.working, loaded.canonical
    calibration, evaluation = loaded.data.calibration, loaded.data.evaluation
    assert canonical is not None
    assert calibration is not None
    dense_layers(canonical)  # float32, or a PassError
    trials = make_trials(canonical, loaded.data, working, split=True)
    conditions = TimingConditions(
        fixed_shape(canonical)[0] or batch, min(LENGTH, working.max_length), working.threads, working.seed
    )
    rows = calibration
    if isinstance(job.data, Sources):
        rows = job.data.spare(calibration, evaluation, JUDGED, working.seed)
    judged = f"{rows.name} {rows.split}, {len(rows)} rows" + ", those of calibration" * (rows is calibration)
    state = SearchFolder(job.output.with_suffix(".search"), _key(loaded, rows, conditions))
    search = Search(job.source, loaded.model, trials, TaskDrop(job.source, rows, working), conditions, state, judged)
    try:
        return search.run(targets), state
    except GateError as error:
        kept = f"what was measured is kept in {state.folder}: ask for less, or delete it"
        raise type(error)(f"{error}; {kept}") from error


def _key(loaded: Loaded, judged: Dataset, conditions: TimingConditions) -> str:
    """A hash of everything that decides what a search measures: versions, files, rows, and how models are timed."""
    reader, working = loaded.working.tokenizer, loaded.working
    files = [reader.file] if reader is not None and reader.file is not None else []
    rows = [one.fingerprint() for one in (loaded.data.calibration, loaded.data.corpus, judged) if one is not None]
    how = [working.max_length, working.threads, working.seed]
    parts = [__version__, onnxruntime.__version__, loaded.sha256, file_sha256(*files), rows, how, asdict(conditions)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
