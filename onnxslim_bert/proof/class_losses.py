"""Which classes a candidate loses rows of, against its source."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.proof.comparison import as_classes
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.wording import aligned


@dataclass(frozen=True)
class ClassLoss:
    """What became of the rows of one label.

    lost: right before, wrong now; won: wrong before, right now. base_margin, margin: by how much the label's class
    leads the best other one (below 0 where it is behind), mean over the rows, of the source and of the candidate.
    """

    label: str
    rows: int
    lost: int
    won: int
    base_margin: float
    margin: float


def class_losses(base: Outputs, candidate: Outputs, dataset: Dataset) -> tuple[ClassLoss, ...]:
    """For each label of `dataset`, in their order, what the candidate loses and gains; empty where it has no classes.

    Rows that the candidate answers with NaN or infinity are wrong, and have no part in its margin.
    """
    labels = as_classes(base, dataset).labels
    if labels is None or base.kind != "classes" or labels.dtype.kind == "f" or labels.ndim != 1:
        return ()
    order = [*(range(base.values.shape[1]) if base.order is None else base.order)]
    before, after = (outputs.predictions() == labels for outputs in (base, candidate))
    found = []
    for label in np.unique(labels):
        rows, own = labels == label, order.index(int(label))
        lost, won = (int(np.sum(rows & part)) for part in (before & ~after, after & ~before))
        margins = [_margin(outputs, rows, own) for outputs in (base, candidate)]
        name = base.names[own] if base.names else dataset.names[label] if dataset.names else str(label)
        found.append(ClassLoss(name, int(rows.sum()), lost, won, *margins))
    return tuple(found)


def loss_lines(losses: tuple[ClassLoss, ...], judged: str) -> Iterator[str]:
    """A table of `losses`; judged: on which rows. No line where there are none."""
    if losses:
        yield f"lost and gained on {judged}; margin: of the label's class over the best other one, mean"
        cells = [
            (one.label, str(one.rows), str(one.lost), str(one.won), f"{one.base_margin:.2f}", f"{one.margin:.2f}")
            for one in losses
        ]
        yield from aligned([("label", "rows", "turned wrong", "turned right", "margin before", "now"), *cells])


def _margin(outputs: Outputs, rows: Array, own: int) -> float:
    values = outputs.values[rows & outputs.finite].astype(np.float64)
    others = np.delete(values, own, axis=1)
    return float(np.mean(values[:, own] - others.max(axis=1))) if others.size else 0.0
