"""Rows of tokens to learn from: taken out of their batches, put together in others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.collect import Rows
from onnxslim_bert.errors import PassError

WINDOW = 64  # batches' worth of shuffled rows among which rows of like length come together


@dataclass(frozen=True)
class Row:
    """One text. feeds: the model's inputs by name, [length] each. real: [length] bool, False for padding inside."""

    feeds: Mapping[str, Array]
    real: Array

    @property
    def key(self) -> bytes:
        """The same for rows of the same inputs."""
        return b"|".join(self.feeds[name].tobytes() for name in sorted(self.feeds))


def rows_of(batches: Iterable[Batch]) -> list[Row]:
    """Every row without the padding behind it. Raises PassError for inputs that are not [batch, seq]."""
    rows: list[Row] = []
    for batch in batches:
        for name, values in batch.feeds.items():
            if values.shape != batch.mask.shape:
                found, needed = list(values.shape), list(batch.mask.shape)
                raise PassError(f"distill: the input {name!r} is {found}; needed one value for each token, {needed}")
        lengths = [int(np.flatnonzero(real)[-1]) + 1 if real.any() else 1 for real in batch.mask]
        rows += [
            Row(
                {name: values[i, :length].copy() for name, values in batch.feeds.items()}, batch.mask[i, :length].copy()
            )
            for i, length in enumerate(lengths)
        ]
    return rows


def padding_of(batches: Rows) -> dict[str, Array] | None:
    """What each input holds where there is padding; None when no batch has any."""
    for batch in batches:
        if not batch.mask.all():
            return {name: values[~batch.mask][-1] for name, values in batch.feeds.items()}
    return None


@dataclass(frozen=True)
class Texts:
    """Rows that can be put together in batches.

    padding: what fills each input behind a row; None where it is not known, and a batch then holds rows of one length.
    batch: rows in a batch. fixed: whether every batch is to have as many. length: of every row, None where it is open.
    """

    rows: Sequence[Row]
    padding: Mapping[str, Array] | None
    batch: int = 32
    fixed: bool = False
    length: int | None = None

    def together(self, places: Array) -> Batch:
        """The rows at `places` as one batch, padded to the longest."""
        rows = [self.rows[place] for place in places]
        shape = len(rows), self.length or max(len(row.real) for row in rows)
        padding = self.padding or {name: np.zeros((), values.dtype) for name, values in rows[0].feeds.items()}
        feeds = {name: np.full(shape, value, rows[0].feeds[name].dtype) for name, value in padding.items()}
        mask = np.zeros(shape, bool)
        for i, row in enumerate(rows):
            mask[i, : len(row.real)] = row.real
            for name, values in row.feeds.items():
                feeds[name][i, : len(values)] = values
        return Batch(feeds, mask, np.asarray(places))

    def epoch(self, rng: np.random.Generator | None = None) -> Iterator[Batch]:
        """Every row once, those of like length together; in an order drawn from `rng`, or the longest first."""
        lengths = np.array([len(row.real) for row in self.rows])
        order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
        window = len(order) if rng is None else WINDOW * self.batch
        plan: list[Array] = []
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part = part[np.argsort(-lengths[part], kind="stable")]
            for run in self._runs(part, lengths):
                plan += [run[at : at + self.batch] for at in range(0, len(run), self.batch)]
        plan = [places for places in plan if len(places) == self.batch or not self.fixed]
        return (self.together(plan[i]) for i in (range(len(plan)) if rng is None else rng.permutation(len(plan))))

    def _runs(self, places: Array, lengths: Array) -> list[Array]:
        """Rows, longest first, cut where a batch must end."""
        if self.padding is not None or self.length is not None:
            return [places]
        return np.split(places, np.flatnonzero(np.diff(lengths[places])) + 1)
