"""What a model answers to a batch: its outputs in float without padding, and how large they are row by row."""

from collections.abc import Sequence

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.collect import real_rows

PIECE = 64  # tokens squared at once, as their squares take twice their memory


def float_outputs(outputs: Sequence[Array], batch: Batch) -> list[Array]:
    """The outputs in float with a row for each text or each real token of `batch`: [texts or real tokens, ...] each."""
    return [real_rows(value, batch.mask) for value in outputs if value.dtype.kind == "f" and value.ndim > 1]


def by_row(values: Array, batch: Batch) -> Array:
    """The mean square of `values`, as `float_outputs` gives them, for each row of `batch`, [rows].

    Values that no row has alone, such as states of relative positions, count for every row.
    """
    flat = values.reshape(len(values), -1)
    pieces = [flat[start : start + PIECE] for start in range(0, len(flat), PIECE)]
    squares = np.concatenate([np.square(piece, dtype=np.float64).mean(1) for piece in pieces])
    owner, rows = np.nonzero(batch.mask)[0], len(batch.rows)
    if len(squares) != len(owner):
        if len(squares) % rows:
            return np.full(rows, squares.mean())
        owner = np.repeat(np.arange(rows), len(squares) // rows)  # of whole rows, or several of each
    means: Array = np.bincount(owner, squares, rows) / np.bincount(owner, minlength=rows)
    return means
