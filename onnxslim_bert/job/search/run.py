"""From a source and a target to a recipe: the files and the rows around a search."""

import hashlib
import json
from dataclasses import asdict, replace

import onnxruntime

from onnxslim_bert import __version__
from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.errors import DataError, GateError
from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.load import Loaded, load
from onnxslim_bert.job.main_recipe import main_recipe
from onnxslim_bert.job.report import Report
from onnxslim_bert.job.rows import fixed_shape, make_trials
from onnxslim_bert.job.run import run
from onnxslim_bert.job.search.costs import TimedRows
from onnxslim_bert.job.search.judge import Judge
from onnxslim_bert.job.search.points import Found
from onnxslim_bert.job.search.search import Search
from onnxslim_bert.job.search.state import SearchState
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.model.dense import dense_layers
from onnxslim_bert.recipes.recipe import Recipe

JUDGED = 1024  # rows, in no calibration, on which the task metric of candidates is measured
LENGTH = 128  # tokens on which models are timed, where they take so many


def run_search(job: Job, targets: Targets, batch: int = 1) -> Report:
    """Run `job` with the recipe that reaches `targets` with the least damage; its own recipe is not read.

    batch: rows a run on which models are timed. What was measured lies in a folder beside the output until the model is
    written, so that a search that was stopped, or asked for too much, goes on where it was. Raises SlimError for what
    the user can mend, a GateError when the targets are out of reach.
    """
    if job.data.calibration is None:
        raise DataError("a search measures on calibration texts: --calib sst2, reviews or a file")
    found, state = find_recipe(load(replace(job, recipe=main_recipe(), timing=True)), targets, batch)
    report = run(replace(job, recipe=Recipe.parse(found.chosen.recipe)), found)
    state.remove()
    return report


def find_recipe(loaded: Loaded, targets: Targets, batch: int) -> tuple[Found, SearchState]:
    """What a search for `targets` measured, with the recipe that it chose; and the folder that holds it.

    Raises PassError for a model that is not float32, a GateError when the targets are out of reach.
    """
    job, working, canonical = loaded.job, loaded.working, loaded.canonical
    calibration, evaluation = loaded.data.calibration, loaded.data.evaluation
    assert canonical is not None
    assert calibration is not None
    dense_layers(canonical)  # float32, or a PassError
    trials = make_trials(canonical, loaded.data, working, split=True)
    workload = TimedRows(
        fixed_shape(canonical)[0] or batch, min(LENGTH, working.max_length), working.threads, working.seed
    )
    rows = calibration
    if isinstance(job.data, Sources):
        rows = job.data.spare(calibration, evaluation, JUDGED, working.seed)
    judged = f"{rows.name} {rows.split}, {len(rows)} rows" + ", those of calibration" * (rows is calibration)
    state = SearchState(job.output.with_suffix(".search"), _key(loaded, rows, workload))
    search = Search(job.source, loaded.model, trials, Judge(job.source, rows, working), workload, state, judged)
    try:
        return search.run(targets), state
    except GateError as error:
        kept = f"what was measured is kept in {state.folder}: ask for less, or delete it"
        raise type(error)(f"{error}; {kept}") from error


def _key(loaded: Loaded, judged: Dataset, workload: TimedRows) -> str:
    """Of everything that decides what a search measures."""
    reader, working = loaded.working.tokenizer, loaded.working
    files = [reader.file] if reader is not None and reader.file is not None else []
    rows = [one.fingerprint() for one in (loaded.data.calibration, loaded.data.corpus, judged) if one is not None]
    how = [working.max_length, working.threads, working.seed]
    parts = [__version__, onnxruntime.__version__, loaded.sha256, file_sha256(*files), rows, how, asdict(workload)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
