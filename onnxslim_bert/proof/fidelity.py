"""How close a candidate's outputs are to the base's, without any label."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.proof.intervals import Interval, bootstrap, in_unit, wilson
from onnxslim_bert.proof.metrics import mean as mean_of
from onnxslim_bert.proof.metrics import pearson, score, share
from onnxslim_bert.proof.outputs import ABSENT
from onnxslim_bert.proof.tasks.neighbours import neighbours_kept
from onnxslim_bert.proof.tasks.table import Kind

TAIL = 0.01  # share of the rows that are the tail


@dataclass(frozen=True)
class Fidelity:
    """How close two models' outputs are. What does not apply to the kind of output is None: a score has no agreement.

    rows: rows compared, those on which both outputs are finite.
    agreement: percent of rows on which both give the same class; of tags a word, of labels one label of a row, of
    answers in passages the same text, of masked tokens the same likeliest one, of queries the same first passage.
    mean_difference, max_difference: of |base - candidate|, over all outputs. tail_difference: what the largest
    difference of a row exceeds on one row of a hundred.
    kl: KL(base || candidate) of the softmax, nats, mean over the rows.
    shift: mean of candidate - base of a score.
    correlation: Pearson correlation of the two scores, in points.
    cosine, min_cosine: of base and candidate embedding, mean and worst row. tail_cosine: the first percentile of rows.
    whole: percent of rows of which all is the same, where a row has several answers: the tags of a sentence.
    mean_cosine: `cosine` with its interval.
    neighbours: percent of each embedding's 10 nearest among all that stay so.
    rank_correlation: of the two models' scores of a query's passages, in points, mean over the queries.
    """

    rows: int
    mean_difference: float
    max_difference: float
    agreement: Interval | None = None
    kl: float | None = None
    shift: float | None = None
    correlation: float | None = None
    cosine: float | None = None
    min_cosine: float | None = None
    whole: Interval | None = None
    tail_difference: float | None = None
    tail_cosine: float | None = None
    mean_cosine: Interval | None = None
    neighbours: Interval | None = None
    rank_correlation: Interval | None = None


def fidelity(
    kind: Kind, base: Array, candidate: Array, *, owner: Array | None = None, same: Array | None = None
) -> Fidelity:
    """Compare two models' outputs [units, width] on the same rows.

    owner: the row of each unit, where a row has several. same: bool [rows], whether both give the same answer.
    """
    if kind == "masked":
        base, candidate = base[:, ::2], candidate[:, ::2]  # log p of the right token, and the likeliest one
    finite = np.logical_and.reduce(np.isfinite(base) & np.isfinite(candidate), axis=1)
    agreement, whole = _agreement(kind, base, candidate, finite, owner, same)
    base, candidate = base[finite].astype(np.float64), candidate[finite].astype(np.float64)
    if not len(base):
        return Fidelity(0, 0.0, 0.0, agreement, whole=whole)
    difference = np.abs(base - candidate)[:, : 1 if kind == "masked" else None]
    tail = float(np.quantile(difference.max(axis=1), 1 - TAIL))
    answered = difference[base[:, : difference.shape[1]] != ABSENT]
    close = Fidelity(len(base), float(answered.mean()), float(difference.max()), tail_difference=tail)
    if kind in ("classes", "tokens"):
        return replace(close, agreement=agreement, kl=softmax_kl(base, candidate), whole=whole)
    if kind in ("labels", "spans", "masked"):
        return replace(close, agreement=agreement, whole=whole)
    if kind == "score":
        shift, correlation = float((candidate - base).mean()), score(pearson, candidate[:, 0], base[:, 0])
        return replace(close, shift=shift, correlation=correlation)
    cosines, kept = row_cosines(base, candidate), neighbours_kept(base, candidate)
    return replace(
        close,
        cosine=float(cosines.mean()),
        min_cosine=float(cosines.min()),
        tail_cosine=float(np.quantile(cosines, TAIL)),
        mean_cosine=in_unit(bootstrap(mean_of, cosines, np.zeros(len(cosines))), 0.01),
        neighbours=bootstrap(mean_of, kept, np.zeros(len(kept))) if len(kept) else None,
    )


ALIKE: Mapping[Kind, Callable[[Array, Array], Array]] = {
    "tokens": lambda base, candidate: base.argmax(axis=1) == candidate.argmax(axis=1),
    "labels": lambda base, candidate: (base > 0) == (candidate > 0),
    "masked": lambda base, candidate: base[:, -1] == candidate[:, -1],
}


def _agreement(
    kind: Kind, base: Array, candidate: Array, finite: Array, owner: Array | None, same: Array | None
) -> tuple[Interval | None, Interval | None]:
    """The percentage of answers that agree, and of rows whose answers all agree; None where that makes no sense.

    Where a row has several answers, whole rows are resampled for the interval.
    """
    if kind == "classes":
        agree = int(np.sum(base[finite].argmax(axis=1) == candidate[finite].argmax(axis=1)))
        return wilson(agree, len(base)), None
    if kind == "spans" and same is not None:
        return wilson(int(same.sum()), len(same)), None
    if kind not in ALIKE:
        return None, None
    alike = ALIKE[kind](base, candidate).reshape(len(base), -1) & finite[:, None]
    rows = np.arange(len(base)) if owner is None else np.unique(owner, return_inverse=True)[1]
    counts = np.stack(
        [np.bincount(rows, weights=alike.sum(axis=1)), np.bincount(rows, minlength=0) * alike.shape[1]], axis=1
    )
    every = int(np.sum(counts[:, 0] == counts[:, 1]))
    return bootstrap(share, counts, np.zeros(len(counts))), wilson(every, len(counts))


def softmax_kl(base: Array, candidate: Array) -> float:
    """KL(base || candidate) in nats, mean over the rows; logits [rows, classes]."""
    p, q = _log_softmax(base), _log_softmax(candidate)
    return max(0.0, float((np.exp(p) * (p - q)).sum(axis=1).mean()))


def row_cosines(base: Array, candidate: Array) -> Array:
    """Cosine of each pair of rows [rows]; 0 where a row is all zeros."""
    lengths = np.linalg.norm(base, axis=1) * np.linalg.norm(candidate, axis=1)
    products = (base * candidate).sum(axis=1)
    cosines: Array = np.divide(products, lengths, out=np.zeros(len(base)), where=lengths > 0)
    return cosines


def pooled(states: Array, mask: Array, pooling: str) -> Array:
    """One vector a row; pooling: mean, max, first or last of the real tokens; states [batch, seq, width]."""
    if pooling == "max":
        best: Array = np.where(mask[:, :, None], states, -np.inf).max(axis=1)
        return best
    if pooling in ("first", "last"):
        ends = mask.argmax(axis=1) if pooling == "first" else mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
        one: Array = states[np.arange(len(states)), ends]
        return one
    return mean_pooled(states, mask)


def mean_pooled(states: Array, mask: Array) -> Array:
    """Mean over the real tokens; states [batch, seq, width], mask [batch, seq] -> [batch, width]."""
    weights = mask.astype(np.float64)[:, :, None]
    pooled: Array = (states * weights).sum(axis=1) / weights.sum(axis=1)
    return pooled


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
