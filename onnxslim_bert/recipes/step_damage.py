"""Measure after each pass how far the model's outputs are from those of the model that it was made from."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.collect import Rows
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session
from onnxslim_bert.rewriting.answers import float_outputs


class StepDamage:
    """Compares the outputs of models with those of `source`, on rows that no pass chooses anything by.

    Models are only run, never changed.
    """

    def __init__(self, source: Model, rows: Rows, *, threads: int = 1) -> None:
        self._rows = list(rows)
        self._threads = threads
        self._exact = self._answers(source)

    def of(self, model: Model) -> float | None:
        """|difference| / |original| of the float outputs; None when shapes differ or `model` does not run here."""
        try:
            answers = self._answers(model)
        except ModelError:
            return None
        if [value.shape for value in answers] != [value.shape for value in self._exact]:
            return None
        pairs = zip(answers, self._exact, strict=True)
        difference = sum(np.square(ours - exact).sum(dtype=np.float64) for ours, exact in pairs)
        size = sum(np.square(exact).sum(dtype=np.float64) for exact in self._exact)
        return float(np.sqrt(difference / max(size, 1e-30)))

    def _answers(self, model: Model) -> list[Array]:
        """The float outputs of `model` for every batch; inputs are cast to the types that it takes by now."""
        session = model_session(model, threads=self._threads)
        types = {tensor.name: tensor.dtype for tensor in model.graph.inputs}
        return [
            value for batch in self._rows for value in float_outputs(run(session, _cast(batch.feeds, types)), batch)
        ]


def _cast(feeds: Mapping[str, Array], types: Mapping[str, Any]) -> dict[str, Array]:
    return {name: values.astype(types[name]) for name, values in feeds.items() if name in types}
