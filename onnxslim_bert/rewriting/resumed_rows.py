"""Calibration rows that start at the layer being rewritten, for passes that go from the first layer to the last."""

from collections.abc import Collection, Sequence

import numpy as np

from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.collect import Rows
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.parts import boundary, cut
from onnxslim_bert.model.session import model_session
from onnxslim_bert.rewriting.trials import Trials

STATES_BYTES = 256e6  # of hidden states, held at once


class ResumedRows:
    """Trials of the part of a model that is still to change.

    A pass rewrites layers from the first to the last and measures each. Layers above the current one do not change any
    more, so what they give for every row is kept, and each measurement starts from that instead of from the token ids.
    Example: with 12 layers, collecting statistics of each runs 12 layers in all, not 1 + 2 + ... + 12 = 78. Where what
    is kept would take more than STATES_BYTES, rows start at the ids each time.
    """

    def __init__(self, model: Model, trials: Trials, states: int | None = None, *, consumed: bool = False) -> None:
        """states: channels of all that is kept for a token; without it, the width of the model's encoder.

        consumed: nobody rewrites or needs `model` any more, so that parts are cut from it and not from copies: each is
        of use until the next is asked for.
        """
        self._model = model
        self._consumed = consumed
        self._trials = trials
        self._rows: tuple[Rows, Rows] = (trials.fitting, trials.held_back)
        self._inputs = {tensor.name for tensor in model.graph.inputs}  # what is rewritten may read them anew
        self._reached: dict[str, np.dtype] = {}
        self._stay = _states_bytes(states or model.encoder.hidden, trials) > STATES_BYTES

    def part(self, names: Collection[str]) -> tuple[Model, Trials]:
        """The part of the model, as it is now, that depends on the constants `names`, and trials of that part.

        names: the weights and biases that may still change. The rows are run up to the first of them and stay there, so
        a later call may not name constants that come before.
        """
        if self._stay:
            return self._model, self._trials
        part = self._model if self._consumed else self._model.clone()
        if not self._consumed:
            cut(part, self._reached)
        edge = boundary(part, names)
        if edge:
            self._run(part, edge)
            cut(part, self._reached)
        read = {tensor.name for tensor in part.graph.inputs}
        self._reached = {name: dtype for name, dtype in self._reached.items() if name in read}
        self._rows = _only(self._rows[0], self._inputs | read), _only(self._rows[1], self._inputs | read)
        return part, self._trials.moved(*(_only(rows, read) for rows in self._rows))

    def _run(self, part: Model, edge: Sequence[str]) -> None:
        """Run `part` on the rows, and keep the values of its tensors `edge` as the rows' new feeds."""
        session = model_session(part, edge, threads=self._trials.threads)
        read = {tensor.name for tensor in session.get_inputs()}
        held = [[run(session, batch.feeds) for batch in _only(rows, read)] for rows in self._rows]
        self._reached |= {name: values.dtype for name, values in zip(edge, held[1][0], strict=True)}
        fitting, held_back = (
            [
                Batch(batch.feeds | dict(zip(edge, values, strict=True)), batch.mask, batch.rows)
                for batch, values in zip(rows, reached, strict=True)
            ]
            for rows, reached in zip(self._rows, held, strict=True)
        )
        self._rows = fitting, held_back


def _only(rows: Rows, names: Collection[str]) -> list[Batch]:
    """`rows` with the feeds `names` alone."""
    return [
        Batch({name: values for name, values in batch.feeds.items() if name in names}, batch.mask, batch.rows)
        for batch in rows
    ]


def _states_bytes(channels: int, trials: Trials) -> float:
    """Bytes of so many channels, float32, for every token of the rows, padding included."""
    return 4.0 * channels * sum(b.mask.size for rows in (trials.fitting, trials.held_back) for b in rows)
