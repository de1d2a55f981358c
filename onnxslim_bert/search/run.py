"""`slim` towards a target: data and files around the search."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from onnxslim_bert import __version__
from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.errors import DataError
from onnxslim_bert.model import Model
from onnxslim_bert.output import staging
from onnxslim_bert.pipeline import run_recipe
from onnxslim_bert.proof.comparison import Comparison, compare
from onnxslim_bert.proof.evaluation import Outputs, evaluate
from onnxslim_bert.proof.footprint import model_bytes
from onnxslim_bert.provenance import Provenance, file_sha256, stamp
from onnxslim_bert.quantize import Options, check_outputs, check_vocabulary, compare_answers, fit_to, make_trials
from onnxslim_bert.recipe import Recipe
from onnxslim_bert.report import report_path, write_report
from onnxslim_bert.search.costs import Workload
from onnxslim_bert.search.search import Found, Search
from onnxslim_bert.search.state import State
from onnxslim_bert.search.targets import Targets
from onnxslim_bert.sources import Sources
from onnxslim_bert.trials import Progress

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

    What was measured lies in a folder beside the output until the search has ended, so that a search that was stopped
    goes on where it was. Raises SlimError for what the user can mend, a GateError when the targets are out of reach.
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
    check_vocabulary(canonical, tokenizer)
    options = fit_to(canonical, options)
    trials = make_trials(canonical, calibration, tokenizer, options, split=True, corpus=corpus, progress=progress)
    workload = Workload(batch, min(128, options.max_length), options.threads, options.seed)
    state = State(output.with_suffix(".search"), _key(source, calibration, corpus, options, workload))
    judge = Judge(source, sources.spare(calibration, evaluation, JUDGED, options.seed), tokenizer, options)
    found = Search(source, model, trials, judge, workload, state).run(targets)
    provenance = Provenance.of(source, found.chosen.recipe, calibration, corpus)
    chosen = Model.load(found.chosen.file)
    stamp(chosen, provenance)
    with staging(output) as folder:
        candidate = folder / output.name
        chosen.save(candidate)
        comparison = None
        if evaluation is not None:
            comparison = compare_answers(source, candidate, evaluation, tokenizer, options, progress)
        result = Searched(
            source,
            output,
            model_bytes(source),
            model_bytes(candidate),
            targets,
            provenance,
            judge.rows.name,
            replace(found, chosen=replace(found.chosen, file=output)),
            comparison,
        )
        report = report_path(candidate)
        write_report(report, result)
        report.replace(report_path(output))
        candidate.replace(output)
    state.remove()
    return result


class Judge:
    """What a candidate loses on rows that are in no calibration, in points of the task metric.

    Without labels, the percentage of rows on which it does not answer as the source does: accuracy drops by no more.
    """

    def __init__(self, source: Path, rows: Dataset, tokenizer: Tokenizer | None, options: Options) -> None:
        self.rows = rows
        self._tokenizer = tokenizer
        self._options = options
        self._source = self._answers(source)

    def __call__(self, candidate: Path) -> float:
        comparison = compare(self._source, self._answers(candidate), self.rows, seed=self._options.seed)
        if comparison.scores:
            return comparison.scores[0].drop.value
        close = comparison.fidelity
        return 100 - close.agreement.value if close.agreement else 100 * (1 - (close.cosine or 0.0))

    def _answers(self, path: Path) -> Outputs:
        options = self._options
        return evaluate(path, self.rows, self._tokenizer, max_length=options.max_length, threads=options.threads)


def _key(source: Path, calibration: Dataset, corpus: Dataset | None, options: Options, workload: Workload) -> str:
    data = [one.fingerprint() for one in (calibration, corpus) if one is not None]
    parts = [__version__, file_sha256(source), data, asdict(options), asdict(workload)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
