"""Where a written model runs, as far as this machine can say; and what it answers there."""

from pathlib import Path

from onnxslim_bert.calibration.cache import Cache
from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.errors import PassError
from onnxslim_bert.job.options import Options
from onnxslim_bert.progress import Progress
from onnxslim_bert.proof.comparison import Comparison, compare
from onnxslim_bert.proof.evaluate_once import evaluate_once
from onnxslim_bert.proof.evaluation import answer
from onnxslim_bert.proof.worst import Disagreement, worst_rows
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.places import Places
from onnxslim_bert.targets.prediction.predict import PREDICTED, predict
from onnxslim_bert.targets.table import CPU, target_named
from onnxslim_bert.targets.target import Target


def place(path: Path, options: Options) -> tuple[Placement | None, str]:
    """Where the nodes of the file at `path` run on the target, or are predicted to; and what is not proven by it.

    None for the CPU provider, which runs everything, and where the target neither executes here nor is predicted.
    Raises ProviderError when it executes here and leaves nodes to the CPU without `options.allow_fallback`.
    """
    target = target_named(options.target)
    if target is CPU:
        return None, ""
    reason = target.absent()
    if not reason:
        return Places((target,), options.allow_fallback).open(target, path).placement, ""
    if target.name in PREDICTED:
        return predict(path, target.name), "predicted by the provider's rules; nothing was run on it"
    return None, reason


def proven_on(options: Options) -> Target:
    """The target on whose answers a model is judged: its own, where that executes here and is no slow emulator."""
    target = target_named(options.target)
    return CPU if target.emulated or target.absent() else target


def compare_answers(
    source: Path,
    candidate: Path,
    evaluation: Dataset,
    tokenizer: Tokenizer | None,
    options: Options,
    progress: Progress | None,
    *,
    candidate_tokenizer: Tokenizer | None = None,
    worst: int = 0,
    cache: Cache | None = None,
) -> tuple[Comparison, tuple[Disagreement, ...]]:
    """How far the candidate's answers are from the source's on the CPU, and the `worst` rows.

    candidate_tokenizer: where it reads texts by another. cache: of the source's answers.
    """
    target = proven_on(options)
    places = Places((target,), options.allow_fallback)
    sizes = {"max_length": options.max_length, "threads": options.threads}
    before = evaluate_once(cache, source, evaluation, tokenizer, **sizes, progress=progress)
    after = answer(
        places.open(target, candidate, threads=options.threads).session,
        candidate,
        evaluation,
        candidate_tokenizer or tokenizer,
        max_length=options.max_length,
        target=target,
        like=before,
        progress=progress,
    )
    return compare(before, after, evaluation, seed=options.seed), worst_rows(before, after, evaluation, worst)


def check_finite(comparison: Comparison) -> None:
    """Raise PassError when the candidate answers NaN or infinity."""
    if comparison.broken:
        raise PassError(
            f"the result answers NaN or infinity on {comparison.broken} of {comparison.rows} rows; nothing was written"
        )
