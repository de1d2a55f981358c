"""The lines that are printed of a comparison of two models' answers to the same rows."""

from collections.abc import Iterator

from onnxslim_bert.model.role_names import role_of
from onnxslim_bert.proof.comparison import Comparison, Score
from onnxslim_bert.proof.intervals import Interval
from onnxslim_bert.proof.metrics import LESS_IS_BETTER
from onnxslim_bert.proof.tasks.table import AGREES
from onnxslim_bert.wording import plural

SHOWN = 0.01  # the least that two decimals show


def compared(seen: Comparison) -> Iterator[str]:
    """On which rows two models were compared, and what came of it."""
    yield f"{seen.data} {seen.split}, {plural(seen.rows, 'row')}; intervals hold with 95 %"
    for score in seen.scores:
        yield f"{score.metric}: {spread(score.base)} -> {spread(score.candidate)}, {fallen(score)}"
    yield from facts(seen)


def fallen(score: Score) -> str:
    """The drop with its interval; below 0 it is called better, and where less is better, that is said."""
    better = ", better" if score.drop.value < -SHOWN / 2 else ""
    less = "; less is better" if score.metric in LESS_IS_BETTER else ""
    return f"drop {spread(score.drop)}{better}{less}"


def facts(seen: Comparison) -> Iterator[str]:
    """One line for each thing that needs no label, and for McNemar's test."""
    if seen.taken:
        yield f"{seen.output}: taken for {seen.taken}"
    if any(role_of(name) != role or "(" in name for role, name in seen.inputs.items()):
        yield "inputs: " + ", ".join(f"{role} to {name}" for role, name in seen.inputs.items())
    yield from seen.notes
    close = seen.fidelity
    if close.agreement:
        of = AGREES.get(seen.kind, "rows") if close.rank_correlation is None else "queries, by the first passage"
        yield f"agreement: {spread(close.agreement)} % of {of}"
    if close.whole:
        yield f"rows of which all agrees: {spread(close.whole)} %"
    tail = "" if close.tail_difference is None else f", on 99 % of rows up to {close.tail_difference:.4g}"
    yield f"{seen.output}: |difference| mean {close.mean_difference:.4g}{tail}, max {close.max_difference:.4g}"
    if close.kl is not None:
        yield f"KL(base || candidate): {close.kl:.3g} nats"
    if close.correlation is not None:
        yield f"one output, no argmax: correlation with the base {close.correlation:.2f}, shift {close.shift:+.4g}"
    if close.rank_correlation is not None:
        yield f"rank correlation a query: {spread(close.rank_correlation)}"
    if close.neighbours is not None:
        yield f"nearest neighbours kept: {spread(close.neighbours)} %"
    if close.cosine is not None:
        tail = "" if close.tail_cosine is None else f", on 99 % of rows from {close.tail_cosine:.6f}"
        yield f"cosine: mean {close.cosine:.6f}{tail}, least {close.min_cosine:.6f}"
    if seen.mcnemar:
        test = seen.mcnemar
        yield f"McNemar: only base right {test.only_base}, only candidate {test.only_candidate}, p {test.p:.3g}"


def spread(interval: Interval) -> str:
    """A value with its interval."""
    return f"{interval.value:.2f} ({interval.low:.1f} to {interval.high:.1f})"
