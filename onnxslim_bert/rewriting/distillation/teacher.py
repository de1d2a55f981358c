"""The model whose answers are learnt: run on texts, its answers kept as far as there is room."""

from collections.abc import Sequence

import numpy as np
import torch

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session
from onnxslim_bert.rewriting.distillation.bfloat16 import multiplies_bfloat16, products_in_bfloat16
from onnxslim_bert.rewriting.distillation.executor import Executor

ROOM = 256e6  # bytes of answers that are kept
ROUNDING = 1e-4  # of their variance, by which answers may be off because of products in bfloat16


class Teacher:
    """Answers batches of texts with the values of `tensors`: in float32, or what is trained on in bfloat16.

    The latter takes less than half of the time where the CPU has instructions for it, and is done when answers to the
    probes are then off by at most 1e-4 of their variance.

    by_token: the tensors that hold one value or row for each token, [batch, seq, ...]; the others hold one for each
    text. exact: answer in float32 what is trained on, too, for a student that is nearer than bfloat16 is.
    """

    def __init__(self, model: Model, tensors: Sequence[str], probes: Sequence[Batch], *, threads: int = 1) -> None:
        """probes: batches, best of several lengths, by which `by_token` is seen."""
        self._tensors = list(tensors)
        self._session = model_session(model, self._tensors, threads=threads)
        self._kept: dict[int, dict[str, Array]] = {}
        self._room = ROOM
        self.by_token = frozenset[str]()
        self.exact = False
        found = [(self.answer(batch), batch.mask.shape) for batch in probes]
        self.by_token = frozenset(
            name for name in self._tensors if all(values[name].shape[:2] == shape for values, shape in found)
        )
        self._rounded = self._rounding(model, probes, [values for values, _ in found])

    @property
    def has_room(self) -> bool:
        """Whether answers to more texts are kept."""
        return self._room > 0

    def answer(self, batch: Batch) -> dict[str, Array]:
        """The values of each tensor in float32. Raises PassError when they are not finite."""
        return self._finite(dict(zip(self._tensors, run(self._session, batch.feeds), strict=True)), batch)

    def remember(self, batch: Batch) -> dict[str, Array]:
        """Values to train on, kept from before where there was room for it; `Batch.rows` says which texts they are of.

        Raises PassError when they are not finite.
        """
        places = [int(place) for place in batch.rows]
        if all(place in self._kept for place in places):
            length = batch.mask.shape[1]
            return {
                name: self._stacked([self._kept[place][name] for place in places], length * (name in self.by_token))
                for name in self._tensors
            }
        executor = None if self.exact else self._rounded
        found = self._finite(self._in_bfloat16(executor, batch), batch) if executor else self.answer(batch)
        for i, place in enumerate(places):
            end = int(np.flatnonzero(batch.mask[i])[-1]) + 1 if batch.mask[i].any() else 1
            values = {name: row[i, :end] if name in self.by_token else row[i] for name, row in found.items()}
            self._keep(place, {name: value.copy() for name, value in values.items()})
        return found

    def _rounding(self, model: Model, probes: Sequence[Batch], exact: Sequence[dict[str, Array]]) -> Executor | None:
        """What answers in bfloat16; None where that is not fast, cannot be done, or changes the answers too much."""
        if not multiplies_bfloat16():
            return None
        try:
            executor = Executor(model)
            rounded = [self._in_bfloat16(executor, batch) for batch in probes]
        except PassError:  # an operator that it does not know
            return None
        for name in self._tensors:
            ours, theirs = (
                np.concatenate([self._real(name, x, batch).ravel() for x, batch in zip(found, probes, strict=True)])
                for found in (rounded, exact)
            )
            if not np.square(ours - theirs).mean() <= ROUNDING * theirs.var():
                return None
        return executor

    def _in_bfloat16(self, executor: Executor, batch: Batch) -> dict[str, Array]:
        with torch.no_grad(), products_in_bfloat16():
            found = executor.run(batch.feeds, self._tensors)
        return {name: values.float().numpy() for name, values in zip(self._tensors, found, strict=True)}

    def _finite(self, found: dict[str, Array], batch: Batch) -> dict[str, Array]:
        for name in self._tensors:
            if not np.isfinite(self._real(name, found, batch)).all():
                raise PassError(f"distill: the teacher's {name!r} is not finite on a text; check the model given")
        return found

    def _real(self, name: str, found: dict[str, Array], batch: Batch) -> Array:
        """The values of a tensor without those of padding."""
        return found[name][batch.mask] if name in self.by_token else found[name]

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
