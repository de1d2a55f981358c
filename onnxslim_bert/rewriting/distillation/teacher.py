"""The model whose answers are learnt: run on texts, its answers kept as far as there is room."""

from collections.abc import Sequence

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session

ROOM = 256e6  # bytes of answers that are kept


class Teacher:
    """Answers batches of texts with the values of `tensors`.

    by_token: the tensors that hold one value or row for each token, [batch, seq, ...]; the others hold one for each
    text.
    """

    def __init__(self, model: Model, tensors: Sequence[str], probes: Sequence[Batch], *, threads: int = 1) -> None:
        """probes: batches, best of several lengths, by which `by_token` is seen."""
        self._tensors = list(tensors)
        self._session = model_session(model, self._tensors, threads=threads)
        self._kept: dict[int, dict[str, Array]] = {}
        self._room = ROOM
        self.by_token = frozenset[str]()
        found = [(self.answer(batch), batch.mask.shape) for batch in probes]
        self.by_token = frozenset(
            name for name in self._tensors if all(values[name].shape[:2] == shape for values, shape in found)
        )

    @property
    def has_room(self) -> bool:
        """Whether answers to more texts are kept."""
        return self._room > 0

    def answer(self, batch: Batch) -> dict[str, Array]:
        """The values of each tensor. Raises PassError when they are not finite."""
        found = dict(zip(self._tensors, run(self._session, batch.feeds), strict=True))
        for name, values in found.items():
            if not np.isfinite(values[batch.mask] if name in self.by_token else values).all():
                raise PassError(f"distill: the teacher's {name!r} is not finite on a text; check the model given")
        return found

    def remember(self, batch: Batch) -> dict[str, Array]:
        """The same, of what was answered before where there was room for it; `Batch.rows` says which texts they are."""
        places = [int(place) for place in batch.rows]
        if all(place in self._kept for place in places):
            length = batch.mask.shape[1]
            return {
                name: self._stacked([self._kept[place][name] for place in places], length * (name in self.by_token))
                for name in self._tensors
            }
        found = self.answer(batch)
        for i, place in enumerate(places):
            end = int(np.flatnonzero(batch.mask[i])[-1]) + 1 if batch.mask[i].any() else 1
            values = {name: row[i, :end] if name in self.by_token else row[i] for name, row in found.items()}
            self._keep(place, {name: value.copy() for name, value in values.items()})
        return found

    def _keep(self, place: int, values: dict[str, Array]) -> None:
        size = sum(value.nbytes for value in values.values())
        if place not in self._kept and self.has_room:
            self._room -= size
            if self.has_room:
                self._kept[place] = values

    @staticmethod
    def _stacked(rows: Sequence[Array], length: int) -> Array:
        """Rows as one array; length: of all of them, zeros behind the shorter ones; 0 where they are of one shape."""
        if not length:
            return np.stack(rows)
        stacked = np.zeros((len(rows), length, *rows[0].shape[1:]), rows[0].dtype)
        for row, values in zip(stacked, rows, strict=True):
            row[: len(values)] = values
        return stacked
