"""The rows on which two models answer most differently, for people to read."""

from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.proof.evaluation import Outputs
from onnxslim_bert.proof.fidelity import row_cosines

ALIKE = 1e-9  # a distance that rounding makes


@dataclass(frozen=True)
class Disagreement:
    """One evaluation row on which two models answer most differently.

    row: its number, from 0. text: the sentence or the pair; empty for ready inputs. base, candidate: the classes or
    scores that they answer, -1 for no class at all; of embeddings 1 and the cosine of the candidate's to the base's.
    label: the right one, None where it is not known. distance: |base - candidate| over the logits, the largest; of
    embeddings 1 - cosine; infinite where the candidate's answer is not finite. flipped: the class is another.
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

    Rows of another class come first, by how decided both models are together: what the two classes are apart in the
    logits of each. Then by distance.
    """
    distances, flipped = _distances(base, candidate), _flipped(base, candidate)
    margins = _margins(base, candidate) if base.kind == "classes" else np.zeros(len(distances))
    order = np.lexsort([np.arange(len(distances)), -distances, -np.where(flipped, margins, 0), ~flipped])
    ours, theirs = base.predictions(), candidate.predictions()
    if base.kind == "embedding":
        ours, theirs = np.ones_like(distances), 1 - distances
    return tuple(
        Disagreement(
            row=int(row),
            text=dataset.texts[row] if dataset.feeds is None else (),
            base=float(ours[row]),
            candidate=float(theirs[row]),
            label=None if dataset.labels is None else float(dataset.labels[row]),
            distance=float(distances[row]),
            flipped=bool(flipped[row]),
        )
        for row in order[: max(count, 0)]
        if distances[row] > ALIKE
    )


def _distances(base: Outputs, candidate: Outputs) -> Array:
    """How far the answers to each row are apart, float64 [rows]; infinite where the candidate's are not finite."""
    ours, theirs = base.values.astype(np.float64), candidate.values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = 1 - row_cosines(ours, theirs) if base.kind == "embedding" else np.abs(ours - theirs).max(axis=1)
    return np.where(candidate.finite, apart, np.inf)


def _flipped(base: Outputs, candidate: Outputs) -> Array:
    """Rows whose class is another, bool [rows]; none where there are no classes."""
    flipped: Array = np.full(len(base.values), base.kind == "classes") & (base.predictions() != candidate.predictions())
    return flipped


def _margins(base: Outputs, candidate: Outputs) -> Array:
    """The logits of the class that each model takes over those of the other's class, both together, [rows]."""
    rows = np.arange(len(base.values))
    ours, theirs = base.values.argmax(axis=1), candidate.values.argmax(axis=1)
    gaps = [
        outputs.values[rows, own] - outputs.values[rows, other]
        for outputs, own, other in ((base, ours, theirs), (candidate, theirs, ours))
    ]
    return np.where(candidate.finite, np.sum(gaps, axis=0), np.inf)
