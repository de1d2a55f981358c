"""One sweep over the calibration batches, feeding every observer that a pass asked for."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.observers import OBSERVERS
from onnxslim_bert.contract import Want
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.model import Model
from onnxslim_bert.runtime import model_session, run


class Rows(Protocol):
    """Calibration rows, the same ones on every pass: `Batches`, or a list of batches."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __len__(self) -> int: ...


Progress = Callable[[int, int], None]  # batches done, batches in all


def collect(
    model: Model,
    wants: Iterable[Want],
    batches: Rows,
    progress: Progress | None = None,
    *,
    threads: int = 1,
    tensors: Collection[str] = (),
) -> dict[Want, Any]:
    """The wanted statistics of `model` over `batches`, padding excluded.

    tensors: computed as well, without statistics; what ONNX Runtime fuses depends on what it must hand out. Raises
    DataError when there are no rows, ModelError when the model does not run or an activation is not finite.
    """
    observers = {want: OBSERVERS[want.kind]() for want in wants}
    if not observers:
        return {}
    given = {tensor.name for tensor in model.graph.inputs}
    read = sorted({*tensors, *(want.tensor for want in observers)} - given)
    session = model_session(model, read, threads=threads) if read else None
    if not len(batches):
        raise DataError("no calibration rows; give a set with at least one row")
    for done, batch in enumerate(batches, start=1):
        held = batch.feeds | (dict(zip(read, run(session, batch.feeds), strict=True)) if session else {})
        for tensor in {want.tensor: None for want in observers}:
            rows = real_rows(held[tensor], batch.mask)
            if not np.isfinite(rows).all():
                raise ModelError(f"tensor {tensor!r} is not finite on calibration rows; check the model's weights")
            for want, observer in observers.items():
                if want.tensor == tensor:
                    observer.update(rows)
        if progress is not None:
            progress(done, len(batches))
    return {want: observer.result() for want, observer in observers.items()}


def real_rows(values: Array, mask: Array) -> Array:
    """values [batch, seq, channels] without padding, [tokens, channels], and ids [batch, seq] likewise, [tokens].

    Other shapes hold real tokens only.
    """
    if values.shape[:2] == mask.shape and (values.ndim == 3 or values.dtype.kind in "iu"):
        return values[mask]
    return values.reshape(-1, values.shape[-1])
