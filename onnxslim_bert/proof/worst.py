"""The rows on which two models answer most differently, for people to read."""

from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.proof.fidelity import row_cosines
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.proof.tasks.answers import plain

ALIKE = 1e-9  # a distance that rounding makes


@dataclass(frozen=True)
class Disagreement:
    """One evaluation row on which two models answer most differently.

    row: its number, from 0.
    text: the sentence or the pair; empty for ready inputs.
    base, candidate: the classes or scores that they answer, -1 for no class at all. Of embeddings, 1 and the cosine of
    the candidate's to the base's. Of tags, sets of labels and answers in passages, 1 and the share that the candidate
    keeps: 0.75 when 3 of 4 tags are the same.
    label: the right one, None where it is not known.
    distance: the largest |base - candidate| of the logits; of embeddings 1 - cosine; infinite where the candidate's
    answer is not finite.
    flipped: whether the two give another class, tag, label or answer.
    """

    row: int
    text: tuple[str, ...]
    base: float
    candidate: float
    label: float | None
    distance: float
    flipped: bool


def worst_rows(base: Outputs, candidate: Outputs, dataset: Dataset, count: int) -> tuple[Disagreement, ...]:
    """At most `count` rows, the worst first; rows that both answer alike are not among them.

    Rows with another answer come first. Those of another class are ordered by how sure both models are of their own:
    each one's logit of its class, less that of the other model's class, added up. Example: base [2, -1] and candidate
    [0, 1] give 3 + 1 = 4. The rest is ordered by distance.
    """
    if dataset.pool and base.kind == "embedding":
        dataset = dataset.apart()  # each text is a row
    distances, flipped = _distances(base, candidate, len(dataset)), _flipped(base, candidate, len(dataset))
    margins = _margins(base, candidate) if base.kind == "classes" else np.zeros(len(distances))
    order = np.lexsort([np.arange(len(distances)), -distances, -np.where(flipped, margins, 0), ~flipped])
    ours, theirs = base.predictions(), candidate.predictions()
    if base.kind == "embedding":
        ours, theirs = np.ones_like(distances), 1 - distances
    elif base.kind in ("tokens", "labels", "spans", "masked"):
        ours, theirs = np.ones_like(distances), _kept(base, candidate, len(distances))
    return tuple(
        Disagreement(
            row=int(row),
            text=_text(dataset, int(row)),
            base=float(ours[row]),
            candidate=float(theirs[row]),
            label=None if dataset.labels is None else float(dataset.labels[row]),
            distance=float(distances[row]),
            flipped=bool(flipped[row]),
        )
        for row in order[: max(count, 0)]
        if distances[row] > ALIKE
    )


def _text(dataset: Dataset, row: int) -> tuple[str, ...]:
    if dataset.feeds is not None:
        return ()
    return (" ".join(dataset.texts[row]),) if dataset.form == "words" else dataset.texts[row]


def _distances(base: Outputs, candidate: Outputs, rows: int) -> Array:
    """How far the answers to each row are apart, float64 [rows]; infinite where the candidate's are not finite."""
    ours, theirs = base.values.astype(np.float64), candidate.values.astype(np.float64)
    if base.kind == "masked":
        ours, theirs = ours[:, :1], theirs[:, :1]
    with np.errstate(invalid="ignore"):
        apart = 1 - row_cosines(ours, theirs) if base.kind == "embedding" else np.abs(ours - theirs).max(axis=1)
    furthest = np.zeros(rows)
    np.maximum.at(furthest, _rows(base, rows), np.where(candidate.finite, apart, np.inf))
    return furthest


def _rows(outputs: Outputs, rows: int) -> Array:
    """The row of each unit; the two texts of a pair are one row."""
    return np.arange(len(outputs.values)) % rows if outputs.owner is None else outputs.owner


def _kept(base: Outputs, candidate: Outputs, rows: int) -> Array:
    """The share of each row's tags or labels that are the same in both, [rows]; for an answer in a passage 1 or 0."""
    if base.kind == "spans":
        return np.array([plain(a) == plain(b) for a, b in zip(base.found, candidate.found, strict=True)], np.float64)
    same = (base.values > 0) == (candidate.values > 0)
    if base.kind == "masked":
        same = (base.values[:, 2] == candidate.values[:, 2])[:, None]
    elif base.kind == "tokens":
        same = (base.predictions() == candidate.predictions())[:, None]
    owner = _rows(base, rows)
    counts = np.bincount(owner, minlength=rows)
    return np.bincount(owner, weights=same.mean(axis=1), minlength=rows) / np.maximum(counts, 1)


def _flipped(base: Outputs, candidate: Outputs, rows: int) -> Array:
    """Rows of which an answer is another, bool [rows]; none where there are no classes."""
    if base.kind == "classes":
        changed: Array = base.predictions() != candidate.predictions()
        return changed
    if base.kind in ("score", "embedding"):
        return np.zeros(rows, bool)
    return _kept(base, candidate, rows) < 1


def _margins(base: Outputs, candidate: Outputs) -> Array:
    """The logits of the class that each model takes over those of the other's class, both together, [rows]."""
    rows = np.arange(len(base.values))
    ours, theirs = base.values.argmax(axis=1), candidate.values.argmax(axis=1)
    gaps = [
        outputs.values[rows, own] - outputs.values[rows, other]
        for outputs, own, other in ((base, ours, theirs), (candidate, theirs, ours))
    ]
    return np.where(candidate.finite, np.sum(gaps, axis=0), np.inf)
