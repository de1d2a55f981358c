"""`slim` towards a target: data and files around the search."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnxruntime

from onnxslim_bert import __version__
from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.errors import DataError, GateError
from onnxslim_bert.graph.files import file_sha256, model_bytes, model_files, staging
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.options import Options
from onnxslim_bert.job.prepare import check_outputs, check_vocabulary, fit_to, fixed_shape, make_trials
from onnxslim_bert.job.prove import check_finite, compare_answers
from onnxslim_bert.job.seal import OPEN, seal
from onnxslim_bert.job.search.costs import Workload
from onnxslim_bert.job.search.judge import Judge
from onnxslim_bert.job.search.search import Found, Search
from onnxslim_bert.job.search.state import State
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.model.dense import dense_layers
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.progress import Progress
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.documents import report_path, write_report
from onnxslim_bert.recipes.provenance import Provenance, stamp
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe

JUDGED = 1024  # rows, in no calibration, on which the task metric of candidates is measured


@dataclass(frozen=True)
class Searched:
    """What a search found and wrote.

    found: the frontier; its files are gone, their recipes make them again. judged: what the drops were measured on.
    comparison: of the written model on evaluation rows; None without any.
    """

    source: Path
    output: Path
    source_bytes: int
    output_bytes: int
    targets: Targets
    provenance: Provenance
    judged: str
    found: Found
    comparison: Comparison | None


def search_files(
    source: Path,
    output: Path,
    targets: Targets,
    sources: Sources,
    options: Options,
    *,
    batch: int = 1,
    overwrite: bool = False,
    in_place: bool = False,
    progress: Progress | None = None,
) -> Searched:
    """Write the model that reaches `targets` with the least damage to `output`, and a report beside it.

    What was measured lies in a folder beside the output until the model is written, so that a search that was stopped,
    or asked for too much, goes on where it was. Raises SlimError for what the user can mend, a GateError when the
    targets are out of reach.
    """
    check_outputs(source, [output, report_path(output)], overwrite=overwrite, in_place=in_place)
    calibration, evaluation = sources.load(options.seed)
    if calibration is None:
        raise DataError("a search measures on calibration texts: --calib sst2, reviews or a file")
    corpus = sources.load_corpus(evaluation)
    tokenizer = sources.tokenizer_for(source, calibration, evaluation, corpus)
    model = Model.load(source)
    canonical = model.clone()
    run_recipe(canonical, Recipe.parse("canonicalize?"))
    dense_layers(canonical)  # float32, or a PassError
    check_vocabulary(canonical, tokenizer)
    options = fit_to(canonical, options)
    trials = make_trials(canonical, calibration, tokenizer, options, split=True, corpus=corpus, progress=progress)
    workload = Workload(fixed_shape(canonical)[0] or batch, min(128, options.max_length), options.threads, options.seed)
    judge = Judge(source, sources.spare(calibration, evaluation, JUDGED, options.seed), tokenizer, options)
    key = _key(source, tokenizer, [calibration, corpus, judge.rows], options, workload)
    state = State(output.with_suffix(".search"), key)
    try:
        found = Search(source, model, trials, judge, workload, state).run(targets)
    except GateError as error:
        kept = f"what was measured is kept in {state.folder}: ask for less, or delete it"
        raise type(error)(f"{error}; {kept}") from error
    provenance = Provenance.of(source, found.chosen.recipe, calibration, corpus)
    chosen = Model.load(found.chosen.file)
    stamp(chosen, provenance)
    with staging(output) as folder:
        candidate = folder / output.name
        chosen.save(candidate)
        comparison = None
        if evaluation is not None:
            comparison, _ = compare_answers(source, candidate, evaluation, tokenizer, options, progress)
            check_finite(comparison)
        seal(candidate, OPEN, options, comparison, sources=sources, tokenizer=tokenizer)
        result = Searched(
            source,
            output,
            model_bytes(source),
            model_bytes(candidate),
            targets,
            provenance,
            f"{judge.rows.name} {judge.rows.split}, {len(judge.rows)} rows"
            + ", those of calibration" * (judge.rows is calibration),
            replace(found, chosen=replace(found.chosen, file=output)),
            comparison,
        )
        report = report_path(candidate)
        write_report(report, result)
        report.replace(report_path(output))
        candidate.replace(output)
    state.remove()
    return result


def _key(
    source: Path, tokenizer: Tokenizer | None, datasets: Sequence[Dataset | None], options: Options, workload: Workload
) -> str:
    files = [*model_files(source), *([tokenizer.file] if tokenizer is not None and tokenizer.file is not None else [])]
    data = [one.fingerprint() for one in datasets if one is not None]
    parts = [__version__, onnxruntime.__version__, file_sha256(*files), data, asdict(options), asdict(workload)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
