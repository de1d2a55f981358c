"""One sweep over the calibration batches, feeding every observer that a pass asked for."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batches
from onnxslim_bert.calibration.observers import OBSERVERS
from onnxslim_bert.contract import Want
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.model import Model
from onnxslim_bert.runtime import model_session, run

Progress = Callable[[int, int], None]  # batches done, batches in all


def collect(
    model: Model, wants: Iterable[Want], batches: Batches, progress: Progress | None = None, *, threads: int = 1
) -> dict[Want, Any]:
    """The wanted statistics of `model` over `batches`, padding excluded.

    Raises DataError when there are no rows, ModelError when the model does not run or an activation is not finite.
    """
    observers = {want: OBSERVERS[want.kind]() for want in wants}
    if not observers:
        return {}
    tensors = sorted({want.tensor for want in observers})
    session = model_session(model, tensors, threads=threads)
    if not len(batches):
        raise DataError("no calibration rows; give a set with at least one row")
    for done, batch in enumerate(batches, start=1):
        for tensor, values in zip(tensors, run(session, batch.feeds), strict=True):
            rows = real_rows(values, batch.mask)
            if not np.isfinite(rows).all():
                raise ModelError(f"tensor {tensor!r} is not finite on calibration rows; check the model's weights")
            for want, observer in observers.items():
                if want.tensor == tensor:
                    observer.update(rows)
        if progress is not None:
            progress(done, len(batches))
    return {want: observer.result() for want, observer in observers.items()}


def real_rows(values: Array, mask: Array) -> Array:
    """values [batch, seq, channels] without padding, [tokens, channels]; other shapes hold real tokens only."""
    if values.ndim == 3 and values.shape[:2] == mask.shape:
        return values[mask]
    return values.reshape(-1, values.shape[-1])
