"""Proof that a candidate still does the base's task, on the same rows."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxslim_bert import __version__
from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.proof.bench import Bench, bench
from onnxslim_bert.proof.comparison import Comparison, compare
from onnxslim_bert.proof.evaluation import Progress, evaluate
from onnxslim_bert.proof.footprint import model_bytes
from onnxslim_bert.proof.gates import Budgets, Verdict, at_least, at_most
from onnxslim_bert.proof.intervals import Interval
from onnxslim_bert.wire import read_skeleton

ROUNDS = 100  # timed runs for a speed-up's interval
NO_BUDGETS = Budgets()


@dataclass(frozen=True)
class Validation:
    """The evidence about one candidate, the budgets it was held to, and a verdict on each.

    base_bytes, candidate_bytes: the files with their external data. bench: None unless a speed-up was asked for.
    """

    base: str
    candidate: str
    base_bytes: int
    candidate_bytes: int
    comparison: Comparison
    bench: Bench | None
    batch_size: int
    max_length: int
    threads: int
    budgets: Budgets
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON-ready document."""
        return {"onnxslim_bert": __version__, **asdict(self)}


def validate(
    base: Path,
    candidate: Path,
    evaluation: Dataset,
    tokenizer: Tokenizer | None,
    budgets: Budgets = NO_BUDGETS,
    *,
    batch_size: int = 1,
    max_length: int = 128,
    threads: int = 1,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Validation:
    """Run both models over the set and judge the candidate; `gates.enforce` turns its verdicts into an error.

    Raises ModelError when the two cannot be compared, DataError when the data cannot judge what the budgets ask.
    """
    if budgets.max_drop is not None and evaluation.labels is None:
        raise DataError(f"a budget for the drop needs labels, and '{evaluation.name}' has none: name their column")
    check_same_inputs(base, candidate)
    before, after = (
        evaluate(
            path,
            evaluation,
            tokenizer,
            batch_size=batch_size,
            max_length=max_length,
            threads=threads,
            progress=progress,
        )
        for path in (base, candidate)
    )
    comparison = compare(before, after, evaluation, resamples=resamples, seed=seed)
    speed = None
    if budgets.min_speedup is not None:
        speed = bench(
            [base, candidate],
            batch_sizes=[batch_size],
            dataset=evaluation,
            tokenizer=tokenizer,
            max_length=max_length,
            rounds=ROUNDS,
            threads=threads,
            seed=seed,
            footprints=False,
            progress=progress,
        )
    nbytes = [model_bytes(path) for path in (base, candidate)]
    return Validation(
        base=str(base),
        candidate=str(candidate),
        base_bytes=nbytes[0],
        candidate_bytes=nbytes[1],
        comparison=comparison,
        bench=speed,
        batch_size=batch_size,
        max_length=max_length,
        threads=threads,
        budgets=budgets,
        verdicts=judge(comparison, budgets, speedup=speed.latencies[1].speedup if speed else None, nbytes=nbytes[1]),
    )


def judge(
    comparison: Comparison, budgets: Budgets, *, speedup: Interval | None = None, nbytes: int | None = None
) -> tuple[Verdict, ...]:
    """A verdict on every budget that is set and measured, after the one that needs no budget: finite outputs."""
    verdicts = [_finite(comparison)]
    if budgets.max_drop is not None:
        if not comparison.scores:
            raise DataError(f"a budget for the drop needs logits and labels: {comparison.output} is an embedding")
        verdicts.append(at_most("max-drop", comparison.scores[0].drop, budgets.max_drop, " points"))
    if budgets.min_agreement is not None:
        if comparison.fidelity.agreement is None:
            raise DataError(f"a budget for the agreement needs classes: {comparison.output} has no argmax")
        verdicts.append(at_least("min-agreement", comparison.fidelity.agreement, budgets.min_agreement, " %"))
    if budgets.min_speedup is not None and speedup is not None:
        verdicts.append(at_least("min-speedup", speedup, budgets.min_speedup, "x"))
    if budgets.max_size is not None and nbytes is not None:
        size, budget = nbytes / 1e6, budgets.max_size / 1e6
        verdicts.append(at_most("max-size", Interval(size, size, size), budget, " MB"))
    return tuple(verdicts)


def check_same_inputs(base: Path, candidate: Path) -> None:
    """Raise ModelError unless the candidate takes inputs of the base only, each of the same rank."""
    known, wanted = _input_ranks(base), _input_ranks(candidate)
    for name, rank in wanted.items():
        if known.get(name) != rank:
            has = ", ".join(f"{n} of rank {r}" for n, r in known.items())
            raise ModelError(f"{candidate} takes {name} of rank {rank}, which {base} does not: it takes {has}")


def _input_ranks(path: Path) -> dict[str, int]:
    graph = read_skeleton(path)[0].graph
    weights = {weight.name for weight in graph.initializer}
    return {i.name: len(i.type.tensor_type.shape.dim) for i in graph.input if i.name not in weights}


def _finite(comparison: Comparison) -> Verdict:
    if comparison.broken:
        return Verdict("finite", "missed", f"NaN or infinite outputs on {comparison.broken} of {comparison.rows} rows")
    return Verdict("finite", "met", f"finite outputs on all {comparison.rows} rows")
