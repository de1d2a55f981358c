"""The answers to batches, gathered by what they are taken for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.errors import ModelError
from onnxslim_bert.proof.fidelity import pooled
from onnxslim_bert.proof.reading import Reading
from onnxslim_bert.proof.tasks.answers import NO_ANSWER, Answer, best_span
from onnxslim_bert.proof.tasks.masked import found


class Collected:
    """The answers of one model, gathered batch by batch.

    width: the least number of classes, for a model that answers class numbers instead of logits.
    """

    def __init__(self, path: Path, reading: Reading, width: int) -> None:
        self._path, self._reading, self._width = path, reading, width
        self._values: list[Array] = []
        self._owners: list[Array] = []
        self._words: list[Array] = []
        self._spans: dict[int, tuple[float, int, int, int]] = {}  # row -> score, window, first and last token
        self._silence: dict[int, float] = {}  # row -> the least score of no answer in a window

    def add(self, batch: Batch, outputs: Mapping[str, Array], windows: Dataset, owner: Array) -> None:
        """Take what was answered to `batch`. windows: what was fed, by row; owner: the data set's row of each."""
        kind, (name, *others) = self._reading.kind, self._reading.outputs
        if self._reading.whole and outputs[name].ndim > 1:
            batch = replace(batch, mask=np.ones(outputs[name].shape[:2], bool))
        if kind == "tokens":
            numbers = batch.words if batch.words is not None else np.cumsum(batch.mask, axis=1) - 1
            kept = (numbers >= 0) & batch.mask
            self._words.append(numbers[kept])
            self._keep(outputs[name][kept], owner[batch.rows[np.nonzero(kept)[0]]])
        elif kind == "masked":
            assert batch.words is not None
            assert windows.labels is not None
            hidden = batch.words >= 0
            fed = batch.rows[np.nonzero(hidden)[0]]
            self._keep(found(outputs[name][hidden], windows.labels[fed]), owner[fed])
        elif kind == "spans":
            both = np.stack([outputs[name], outputs[others[0]]], axis=-1)
            self._keep(both[batch.mask], owner[batch.rows[np.nonzero(batch.mask)[0]]])
            for index, window in enumerate(batch.rows):
                self._take_span(both[index], int(window), windows, int(owner[window]))
        else:
            self._keep(one_per_row(self._path, name, outputs[name], batch.mask, self._reading.pooling), batch.rows)

    def values(self) -> tuple[Array, Array, Array | None]:
        """float32 [units, width], the row of each unit and, of tags, the number of its word in that row; all in the
        data set's order.

        Raises ModelError for an output whose width is not always the same.
        """
        values = self._values
        if all(each.dtype.kind in "iub" for each in values):
            numbers = np.concatenate(values).reshape(-1).astype(np.int64)
            width = max(self._width, int(numbers.max(initial=0)) + 1, 2)
            values = [np.eye(width, dtype=np.float32)[np.clip(numbers, 0, width - 1)]]
        widths = sorted({each.shape[1] for each in values})
        if len(widths) > 1:
            name, spread = self._reading.output, f"{widths[0]} to {widths[-1]}"
            raise ModelError(
                f"{self._path}: output {name} is {spread} wide, as the text: needed logits or an embedding"
            )
        owners = np.concatenate(self._owners)
        order = np.argsort(owners, kind="stable")
        words = np.concatenate(self._words)[order] if self._words else None
        return np.concatenate(values)[order].astype(np.float32), owners[order], words

    def answers(self, windows: Dataset, dataset: Dataset) -> tuple[Answer, ...]:
        """The likeliest span of each question of `dataset`."""
        found = []
        for row in range(len(dataset)):
            score, *place = self._spans.get(row, (-np.inf, 0, 0, 0))
            lead = score - self._silence.get(row, 0.0)
            found.append(Answer(self._text(windows, *place), lead) if np.isfinite(lead) else NO_ANSWER)
        return tuple(found)

    def _keep(self, values: Array, owners: Array) -> None:
        self._values.append(values)
        self._owners.append(owners)

    def _take_span(self, logits: Array, window: int, windows: Dataset, row: int) -> None:
        """Keep the best span of the question `row` over its windows, and the least that any of them gives to no answer.

        Position 0, the first special token, stands for no answer (Devlin et al. 2019, as for `best_span`).
        """
        places = windows.encoded[window].places
        context = np.zeros(len(logits), bool)
        context[: len(places)] = [place is not None for place in places]
        score, first, last = best_span(logits[:, 0], logits[:, 1], context)
        self._silence[row] = min(self._silence.get(row, np.inf), float(logits[0].sum()))
        if row not in self._spans or score > self._spans[row][0]:
            self._spans[row] = score, window, first, last

    def _text(self, windows: Dataset, window: int, first: int, last: int) -> str:
        places = windows.encoded[window].places
        begin, end = places[first], places[last]
        return "" if begin is None or end is None else windows.texts[window][1][begin[0] : end[1]]


def one_per_row(path: Path, name: str, output: Array, mask: Array, pooling: str = "mean") -> Array:
    """[batch, width] of an output [batch], [batch, width] or [batch, length, width]; mask [batch, length]."""
    if output.ndim == 1:
        output = output[:, None]
    if output.shape[: output.ndim - 1] != mask.shape[: output.ndim - 1]:
        raise ModelError(f"{path}: output {name} is {list(output.shape)} for a batch of {list(mask.shape)} tokens")
    return pooled(output, mask, pooling).astype(np.float32) if output.ndim == 3 else output
