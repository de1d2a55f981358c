"""One sweep over the calibration batches, feeding every observer that a pass asked for."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.cache import Cache, key_of
from onnxslim_bert.calibration.observers import OBSERVERS, Want, packed, unpacked
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session

LARGEST = 256e6  # bytes of statistics of one kind that are kept: they are in memory twice meanwhile


class Rows(Protocol):
    """Calibration rows, the same ones on every pass: `Batches`, or a list of batches."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __len__(self) -> int: ...


BatchProgress = Callable[[int, int], None]  # batches done, batches in all


def collect(
    model: Model,
    wants: Iterable[Want],
    batches: Rows,
    progress: BatchProgress | None = None,
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

    Some graphs put tokens first, [seq, batch, channels], or in one row, [batch * seq, channels]. Other shapes hold real
    tokens only.
    """
    if values.ndim == 3 and values.shape[:2] == mask.shape[::-1] != mask.shape:
        return values[mask.T]
    if values.ndim == 2 and len(values) == mask.size and values.dtype.kind == "f":
        return values[mask.reshape(-1)]
    if values.shape[:2] == mask.shape and (values.ndim == 3 or values.dtype.kind in "iu"):
        return values[mask]
    return values.reshape(-1, values.shape[-1])


def collect_once(
    cache: Cache,
    model: Model,
    wants: Sequence[Want],
    rows: Rows,
    progress: BatchProgress | None = None,
    *,
    rows_sha256: str,
    threads: int = 1,
) -> dict[Want, Any]:
    """What `collect` answers, of `cache` as far as it is there; kept there otherwise, a kind of statistic at a time.

    The same bits in either case: every tensor that is wanted at once is part of the key, and computed by every sweep,
    since ONNX Runtime rounds in other places when it need not hand a tensor out.
    """
    kinds = {want.kind: [same for same in wants if same.kind == want.kind] for want in wants}
    tensors = sorted({want.tensor for want in wants})
    sweep = {"model": model.fingerprint(), "tensors": tensors, "rows": rows_sha256, "threads": threads}
    keys = {
        kind: key_of("statistics", of=kind, wants=[want.tensor for want in same], **sweep)
        for kind, same in kinds.items()
    }
    found: dict[Want, Any] = {}
    for kind, same in kinds.items():
        if (held := cache.get(keys[kind])) is not None:
            found |= dict(zip(same, unpacked(kind, held, len(same)), strict=True))
    missing = [want for want in wants if want not in found]
    fresh = collect(model, missing, rows, progress, threads=threads, tensors=tensors)
    for kind in dict.fromkeys(want.kind for want in missing):
        arrays = packed(kind, [fresh[want] for want in kinds[kind]])
        if sum(values.nbytes for values in arrays.values()) <= LARGEST:
            cache.put(keys[kind], arrays)
    return {want: found.get(want, fresh.get(want)) for want in wants}


def rows_sha256(rows: Rows) -> str:
    """The content of calibration rows in their batches, hexadecimal: feeds, padding and order."""
    digest = hashlib.sha256()
    for batch in rows:
        for name, values in sorted({**batch.feeds, "": batch.mask}.items()):
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()
