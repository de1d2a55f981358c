"""Proof that a candidate still does the base's task, on the same rows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.graph.download import download_bytes
from onnxslim_bert.graph.files import model_bytes, model_files
from onnxslim_bert.graph.signature import fed_inputs
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.proof.bench import Bench, Entry, Rounds, bench
from onnxslim_bert.proof.comparison import Comparison, compare
from onnxslim_bert.proof.evaluation import answer, evaluate
from onnxslim_bert.proof.gates import Budgets
from onnxslim_bert.proof.validation import Validation
from onnxslim_bert.proof.verdicts import judge
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.places import CPU_ONLY, Places
from onnxslim_bert.targets.table import CPU

ROUNDS = 100  # timed runs for a speed-up's interval
NO_BUDGETS = Budgets()


def validate(
    base: Path,
    candidate: Path,
    evaluation: Dataset,
    working: Working,
    budgets: Budgets = NO_BUDGETS,
    *,
    batch_size: int = 1,
) -> Validation:
    """Run both models over the set on the CPU provider and judge the candidate.

    `gates.enforce` turns the verdicts into an error. Raises as `validate_all` does.
    """
    (result,) = validate_all(base, [candidate], evaluation, working, budgets, batch_size=batch_size)
    return result


def validate_all(
    base: Path,
    candidates: Sequence[Path],
    evaluation: Dataset,
    working: Working,
    budgets: Budgets = NO_BUDGETS,
    *,
    places: Places = CPU_ONLY,
    latency: bool = False,
    batch_size: int = 1,
) -> tuple[Validation, ...]:
    """Run the base on the CPU provider and every candidate on every target, over the same rows, and judge each.

    latency: measure times and memory too; a budget for the speed-up has times measured in any case.
    Raises ModelError when two cannot be compared, DataError when the data cannot judge what the budgets ask,
    ProviderError when a candidate does not run on a target.
    """
    if budgets.max_drop is not None and not evaluation.is_labelled:
        raise DataError(f"a budget for the drop needs labels, and '{evaluation.name}' has none: name their column")
    for candidate in candidates:
        check_same_inputs(base, candidate)
    limits = [working.max_length, *(places.shape or ())[1:]]
    if working.tokenizer is not None:
        limits.append(working.tokenizer.max_length)
    working = replace(working, max_length=min(limits))
    for target in places.targets:
        target.setup(places.options_of(target), working.threads)  # fails now rather than after the base has run
    before = evaluate(base, evaluation, working, batch_size=batch_size)
    entries: list[Entry] = [(path, target) for path in candidates for target in places.targets]
    seen: list[tuple[Comparison, Placement]] = []
    for path, target in entries:
        session, placement = places.open(target, path, threads=working.threads)
        after = answer(session, path, evaluation, working, batch_size=batch_size, target=target, like=before)
        seen.append((compare(before, after, evaluation, seed=working.seed), placement))
    times: dict[Entry, Bench] = {}
    timed = [entry for entry in entries if not entry[1].emulated]
    if timed and (latency or budgets.min_speedup is not None):
        speed = bench(
            [(base, CPU), *timed],
            working,
            batch_sizes=[batch_size],
            dataset=evaluation,
            rounds=Rounds(ROUNDS),
            footprints=latency,
            places=places,
        )
        first, *others = speed.latencies
        times = {entry: replace(speed, latencies=(first, own)) for entry, own in zip(timed, others, strict=True)}

    def result(entry: Entry, comparison: Comparison, placement: Placement) -> Validation:
        (path, target), own = entry, times.get(entry)
        where = (
            "" if entries == [(path, CPU)] else target.name if len(candidates) == 1 else f"{target.name}, {path.name}"
        )
        speedup = own.latencies[1].speedup if own else None
        verdicts = judge(
            comparison,
            budgets,
            speedup=speedup,
            nbytes=model_bytes(path),
            download=None if budgets.max_download is None else download_bytes(model_files(path)),
            emulated=target.emulated,
        )
        return Validation(
            base=str(base),
            candidate=str(path),
            base_bytes=model_bytes(base),
            candidate_bytes=model_bytes(path),
            comparison=comparison,
            bench=own,
            batch_size=batch_size,
            max_length=working.max_length,
            threads=working.threads,
            budgets=budgets,
            verdicts=tuple(replace(verdict, where=where) for verdict in verdicts),
            target=target.name,
            placement=placement,
        )

    return tuple(result(entry, *found) for entry, found in zip(entries, seen, strict=True))


def check_same_inputs(base: Path, candidate: Path) -> None:
    """Raise ModelError unless the candidate takes inputs of the base only, each of the same rank."""
    known, wanted = _input_ranks(base), _input_ranks(candidate)
    for name, rank in wanted.items():
        if known.get(name) != rank:
            has = ", ".join(f"{n} of rank {r}" for n, r in known.items())
            raise ModelError(f"{candidate} takes {name} of rank {rank}, which {base} does not: it takes {has}")


def _input_ranks(path: Path) -> dict[str, int]:
    inputs = fed_inputs(read_skeleton(path)[0].graph)
    return {value.name: len(value.type.tensor_type.shape.dim) for value in inputs}
