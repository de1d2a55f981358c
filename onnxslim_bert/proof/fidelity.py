"""How close a candidate's outputs are to the base's, without any label."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.proof.intervals import Interval, wilson
from onnxslim_bert.proof.metrics import pearson, score

Kind = Literal["classes", "score", "embedding"]


@dataclass(frozen=True)
class Fidelity:
    """What does not apply to the kind of output is None: one score has no argmax, an embedding no classes.

    rows: rows compared, those on which both outputs are finite.
    agreement: percent of rows on which both give the same class.
    mean_difference, max_difference: of |base - candidate|, over all outputs.
    kl: KL(base || candidate) of the softmax, nats, mean over the rows.
    shift: mean of candidate - base of a score.
    correlation: Pearson correlation of the two scores, in points.
    cosine, min_cosine: of base and candidate embedding, mean and worst row.
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


def fidelity(kind: Kind, base: Array, candidate: Array) -> Fidelity:
    """Compare two models' outputs [rows, width] on the same rows."""
    finite = np.isfinite(base).all(axis=1) & np.isfinite(candidate).all(axis=1)
    agree = int(np.sum(base[finite].argmax(axis=1) == candidate[finite].argmax(axis=1)))
    agreement = wilson(agree, len(base)) if kind == "classes" else None
    base, candidate = base[finite].astype(np.float64), candidate[finite].astype(np.float64)
    if not len(base):
        return Fidelity(0, 0.0, 0.0, agreement)
    difference = np.abs(base - candidate)
    rows, mean, largest = len(base), float(difference.mean()), float(difference.max())
    if kind == "classes":
        return Fidelity(rows, mean, largest, agreement, kl=softmax_kl(base, candidate))
    if kind == "score":
        shift, correlation = float((candidate - base).mean()), score(pearson, candidate[:, 0], base[:, 0])
        return Fidelity(rows, mean, largest, shift=shift, correlation=correlation)
    cosines = row_cosines(base, candidate)
    return Fidelity(rows, mean, largest, cosine=float(cosines.mean()), min_cosine=float(cosines.min()))


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


def mean_pooled(states: Array, mask: Array) -> Array:
    """Mean over the real tokens; states [batch, seq, width], mask [batch, seq] -> [batch, width]."""
    weights = mask.astype(np.float64)[:, :, None]
    pooled: Array = (states * weights).sum(axis=1) / weights.sum(axis=1)
    return pooled


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
