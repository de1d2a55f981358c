"""A search as a job: prepare its rows and its folder, search, and run the job with the recipe that was found."""

import hashlib
import json
from dataclasses import asdict, replace

import onnxruntime

from onnxslim_bert import __version__
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.errors import DataError, GateError, PassError, ProviderError
from onnxslim_bert.graph.files import file_sha256, staging
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.load import Loaded, check_free, load
from onnxslim_bert.job.main_recipe import main_recipe
from onnxslim_bert.job.report import Report
from onnxslim_bert.job.rows import fixed_shape, make_trials
from onnxslim_bert.job.run import run_in, unfinished_folder
from onnxslim_bert.job.seal import Gate
from onnxslim_bert.job.search.costs import TimingConditions
from onnxslim_bert.job.search.frontier import SearchResult
from onnxslim_bert.job.search.search import Search
from onnxslim_bert.job.search.search_folder import SearchFolder
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.job.search.task_drop import TaskDrop
from onnxslim_bert.model.dense import dense_layers
from onnxslim_bert.passes.distill import check_torch
from onnxslim_bert.proof.bench import check_timeable
from onnxslim_bert.proof.gates import Budgets
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.targets.int8_kernels import u8s8_saturates
from onnxslim_bert.targets.table import target_named
from onnxslim_bert.wording import plural

JUDGED = 1024  # rows, in no calibration, on which the task metric of candidates is measured
LENGTH = 128  # tokens in the rows on which models are timed, at most


def run_search(job: Job, targets: Targets, batch: int = 1, texts: int = 0) -> Report:
    """Search for the recipe that reaches `targets` at the least damage, and run `job` with it.

    `job.recipe` is not read. batch: rows in a run when models are timed. What the search measures is kept in a folder
    beside the output, OUTPUT.search without the output's suffix, until the model is written: run again after it was
    stopped, or with other targets, the search measures none of it again.

    texts: on so many texts of the corpus, enriched copies included, the best plan is distilled; 0 distils none. Rows
    that candidates are judged on are left out of the corpus then.

    Raises a GateError when the targets are out of reach, another SlimError for what the user can mend.
    """
    if job.data.calibration is None:
        raise DataError("a search measures on calibration texts: --calib sst2, reviews or a file")
    _check_times(job)
    if texts:
        _check_distils(job, targets)
    check_free(job)
    with staging(job.output) as folder:
        loaded = load(replace(job, recipe=main_recipe(), timing=True))
        rows = judged_rows(loaded)
        if texts:
            loaded = without_judged(loaded, rows)
            job = replace(job, data=loaded.data, working=replace(loaded.working, unfinished=None))
        found, state = find_recipe(loaded, rows, targets, batch, texts)
        budgets = held(targets, loaded.data.evaluation)
        report = run_in(folder, replace(job, recipe=Recipe.parse(found.chosen.recipe), gate=Gate(budgets)), found)
    if report.published:
        state.remove()
    return report


def held(targets: Targets, evaluation: Dataset | None) -> Budgets:
    """What the written file is held to: the size that was searched for; the drop, where evaluation rows have labels."""
    limit = None if targets.nbytes is None else int(targets.nbytes)
    return Budgets(
        max_drop=targets.drop if evaluation is not None and evaluation.is_labelled else None,
        max_size=None if targets.packed else limit,
        max_download=limit if targets.packed else None,
    )


def judged_rows(loaded: Loaded) -> Dataset:
    """The rows on which candidates lose points of the task metric: in no calibration where there are others."""
    calibration = loaded.data.calibration
    assert calibration is not None
    if not isinstance(loaded.job.data, Sources):
        return calibration
    return loaded.job.data.spare(calibration, loaded.data.evaluation, JUDGED, loaded.working.seed)


def without_judged(loaded: Loaded, rows: Dataset) -> Loaded:
    """The same with no row of `rows` in the corpus, and with a place to keep the state of trainings."""
    corpus = loaded.data.corpus
    assert corpus is not None
    working = replace(loaded.working, unfinished=unfinished_folder(loaded.job))
    return replace(loaded, data=replace(loaded.data, corpus=corpus.without(rows)), working=working)


def _check_times(job: Job) -> None:
    """Raise ProviderError where nothing can be timed on the target."""
    target = target_named(job.deployment.target)
    check_timeable(target)
    if reason := target.absent():
        raise ProviderError(f"a search times models where they are to run: {reason}")


def _check_distils(job: Job, targets: Targets) -> None:
    """Raise an error where nothing could be distilled, before hours of measuring."""
    if targets.speedup is None and targets.nbytes is None:
        raise PassError("--distill trains plans for a speed or a size: --target-speedup, --target-size, --max-download")
    if job.data.corpus is None:
        raise DataError("--distill learns from texts: --corpus sst2 or a file, without labels")
    check_torch()


def find_recipe(
    loaded: Loaded, rows: Dataset, targets: Targets, batch: int, texts: int = 0
) -> tuple[SearchResult, SearchFolder]:
    """Search for `targets`: what was measured, with the chosen recipe, and the folder in which it is kept.

    rows: on which candidates are judged. texts: see `run_search`. Raises PassError for a model that is not float32, a
    GateError when the targets are out of reach.
    """
    job, working, canonical = loaded.job, loaded.working, loaded.canonical
    assert canonical is not None
    dense_layers(canonical)  # float32, or a PassError
    trials = make_trials(canonical, loaded.data, working, split=True)
    conditions = TimingConditions(
        fixed_shape(canonical)[0] or batch,
        next(iter(job.deployment.seq), min(LENGTH, working.max_length)),
        working.threads,
        working.seed,
        targets.packed,
        job.deployment,
    )
    of_calibration = ", those of calibration" * (rows is loaded.data.calibration)
    judged = f"{rows.name} {rows.split}, {plural(len(rows), 'row')}{of_calibration}"
    state = SearchFolder(job.output.with_suffix(".search"), _key(loaded, rows, conditions))
    drop_of = TaskDrop(job.source, rows, replace(working, progress=None), job.deployment)
    search = Search(job.source, loaded.model, trials, drop_of, conditions, state, judged, drop_of.losses)
    try:
        return search.run(targets, texts), state
    except GateError as error:
        folders = [state.folder, *(folder for folder in (unfinished_folder(job).folder,) if folder.exists())]
        kept = f"what was measured is kept in {' and '.join(map(str, folders))}: ask for less, or delete it"
        raise type(error)(f"{error}; {kept}", error.found) from error


def _key(loaded: Loaded, judged: Dataset, conditions: TimingConditions) -> str:
    """A hash of everything that decides what a search measures: versions, files, rows, and how models are timed."""
    reader, working = loaded.working.tokenizer, loaded.working
    files = [reader.file] if reader is not None and reader.file is not None else []
    rows = [one.fingerprint() for one in (loaded.data.calibration, loaded.data.corpus, judged) if one is not None]
    how = [working.max_length, working.threads, working.seed, u8s8_saturates()]
    parts = [__version__, onnxruntime.__version__, loaded.sha256, file_sha256(*files), rows, how, asdict(conditions)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
