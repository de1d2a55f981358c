"""Calibration rows that pass through a model once, while it changes from the top downwards."""

from collections.abc import Collection, Sequence

import numpy as np

from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.collect import Rows
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.parts import beyond, boundary
from onnxslim_bert.model.session import model_session
from onnxslim_bert.rewriting.trials import Trials

STATES_BYTES = 256e6  # of hidden states, held at once


class Ahead:
    """Trials of what is still to change in a model.

    Rows that ran through what lies above, which is done, go on from there: their hidden states are held. If those took
    more than STATES_BYTES, rows start at the top each time.
    """

    def __init__(self, model: Model, trials: Trials) -> None:
        self._model = model
        self._trials = trials
        self._rows: tuple[Rows, Rows] = (trials.fitting, trials.held_back)
        self._inputs = {tensor.name for tensor in model.graph.inputs}  # what is rewritten may read them anew
        self._reached: dict[str, np.dtype] = {}
        self._stay = _states_bytes(model, trials) > STATES_BYTES

    def part(self, names: Collection[str]) -> tuple[Model, Trials]:
        """What the constants `names` reach of the model as it is now, and trials of that part.

        Later calls name nothing that lies above.
        """
        if self._stay:
            return self._model, self._trials
        part = beyond(self._model, self._reached)
        edge = boundary(part, names)
        if edge:
            self._run(part, edge)
            part = beyond(self._model, self._reached)
        read = {tensor.name for tensor in part.graph.inputs}
        self._reached = {name: dtype for name, dtype in self._reached.items() if name in read}
        self._rows = _only(self._rows[0], self._inputs | read), _only(self._rows[1], self._inputs | read)
        return part, self._trials.moved(*(_only(rows, read) for rows in self._rows))

    def _run(self, part: Model, edge: Sequence[str]) -> None:
        """Let the rows reach the tensors `edge`."""
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


def _states_bytes(model: Model, trials: Trials) -> float:
    """What one hidden state of every token takes, float32."""
    return 4.0 * model.encoder.hidden * sum(b.mask.size for rows in (trials.fitting, trials.held_back) for b in rows)
