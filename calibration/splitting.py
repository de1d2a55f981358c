"""A part of a data set: some of its rows, or two sides without a row in common."""

import numpy as np

from onnxslim_bert.calibration.dataset import RANKED, Dataset, row_keys
from onnxslim_bert.errors import DataError


def sample(dataset: Dataset, rows: int | None, seed: int) -> Dataset:
    """`rows` of the set drawn without replacement, in file order; all of them when there are no more.

    Rows to be ranked are drawn query by query, so that the last one may bring more.
    """
    if rows is None or rows >= len(dataset):
        return dataset
    units, drawn = dataset.units(), np.random.default_rng(seed)
    if dataset.task not in RANKED:
        return dataset.take(np.sort(drawn.choice(len(dataset), rows, replace=False)).tolist())
    order = drawn.permutation(int(units.max()) + 1)
    before = np.cumsum([0, *np.bincount(units)[order][:-1]])
    return dataset.take(np.flatnonzero(np.isin(units, order[before < rows])).tolist())


def check_disjoint(calibration: Dataset, evaluation: Dataset) -> None:
    """Raises DataError when a row of `calibration`, spaces and case apart, is also one of `evaluation`."""
    seen = set(row_keys(evaluation))
    shared = [row for row, key in enumerate(row_keys(calibration)) if key in seen]
    if shared:
        example = repr(" | ".join(calibration.texts[shared[0]])[:80]) if calibration.texts else f"row {shared[0] + 1}"
        raise DataError(
            f"{len(shared)} of {len(calibration)} calibration rows are evaluation rows too, such as {example}: "
            "evaluate on rows that calibration has not seen"
        )


def holdout(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split into (kept, held) in file order, disjoint: `fraction` of the distinct rows, and at least one, is held."""
    keys = (
        row_keys(dataset) if dataset.task not in RANKED else dataset.units().tolist()
    )  # a query is held with all it has
    distinct = list(dict.fromkeys(keys))
    if len(distinct) < 2:
        raise DataError(f"'{dataset.name}' has {len(distinct)} distinct row: needed 2 to hold one back")
    count = min(max(round(fraction * len(distinct)), 1), len(distinct) - 1)
    held = {distinct[index] for index in np.random.default_rng(seed).choice(len(distinct), count, replace=False)}
    sides: tuple[list[int], list[int]] = ([], [])
    for row, key in enumerate(keys):
        sides[key in held].append(row)
    return dataset.take(sides[0]), dataset.take(sides[1])
