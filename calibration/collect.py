"""One sweep over the calibration batches, feeding every observer that a pass asked for."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.cache import Cache, key_of
from onnxslim_bert.calibration.observers import OBSERVERS, Want, packed, unpacked
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.graph.sessions import run_in_turn
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session

LARGEST = 256e6  # bytes of statistics of one kind that are kept: they are in memory twice meanwhile


class Rows(Protocol):
    """Calibration rows in batches, the same each time one goes through them: `Batches`, or a list of batches."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __len__(self) -> int: ...


BatchProgress = Callable[[int, int], None]  # batches done, batches in all


def collect(
    model: Model,
    wants: Iterable[Want],
    batches: Rows,
    progress: BatchProgress | None = None,
    *,
    hard: Rows = (),
    threads: int = 1,
    tensors: Collection[str] = (),
) -> dict[Want, Any]:
    """The wanted statistics of `model` over `batches`, padding excluded.

    hard: more batches, for what is wanted `hard` alone.
    tensors: more tensors to compute, without statistics of them: what ONNX Runtime fuses, and so where it rounds,
    depends on which tensors it must hand out. Raises DataError when there are no rows, ModelError when the model does
    not run or an activation is not finite.
    """
    observers = {want: OBSERVERS[want.kind]() for want in wants}
    if not observers:
        return {}
    given = {tensor.name for tensor in model.graph.inputs}
    read = sorted({*tensors, *(want.tensor for want in observers)} - given)
    session = model_session(model, read, threads=threads, many_runs=True) if read else None
    wanted = {want.tensor for want in observers}
    if not len(batches):
        raise DataError("no calibration rows; give a set with at least one row")
    count = len(batches) + len(hard)
    for done, batch in enumerate(chain(batches, hard), start=1):
        if not batch.mask.any():
            continue  # padding alone: nothing is learned of it
        for tensor, values in chain(batch.feeds.items(), run_in_turn(session, batch.feeds) if session else ()):
            if tensor not in wanted:
                continue
            rows = real_rows(values, batch.mask)
            if not np.isfinite(rows).all():
                raise ModelError(f"tensor {tensor!r} is not finite on calibration rows; check the model's weights")
            for want, observer in observers.items():
                if want.tensor == tensor and (want.hard or done <= len(batches)):
                    observer.update(rows)
        if progress is not None:
            progress(done, count)
    return {want: observer.result() for want, observer in observers.items()}


def real_rows(values: Array, mask: Array) -> Array:
    """The values at real tokens, padding dropped: [tokens, channels], or [tokens] for ids.

    mask: [batch, seq], True at real tokens.
    values: [batch, seq, channels], or ids [batch, seq]. Some graphs put the sequence first, [seq, batch, channels], or
    all tokens in one row, [batch * seq, channels]. Of any other shape every value is kept.
    Example: values [2, 2, 8] with the mask [[True, True], [True, False]] give [3, 8].
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
    hard: Rows = (),
    rows_sha256: str,
    threads: int = 1,
) -> dict[Want, Any]:
    """The statistics that `collect` returns, read from `cache` where they are; the others are measured and put there.

    All statistics of one kind are one entry; those of more than LARGEST bytes are not kept. rows_sha256: of `rows` and
    `hard`. Read or measured, the bits are the same. ONNX Runtime rounds in other places when it need not hand a tensor
    out, so every key names all tensors that are wanted together, and every sweep computes all of them. Example: "gram"
    of x is in the cache and "minmax" of y is not: the sweep for y computes x too.
    """
    kinds = {
        (want.kind, want.hard): [same for same in wants if (same.kind, same.hard) == (want.kind, want.hard)]
        for want in wants
    }
    tensors = sorted({want.tensor for want in wants})
    sweep = {"model": model.fingerprint(), "tensors": tensors, "rows": rows_sha256, "threads": threads}
    keys = {
        kind: key_of("statistics", of=kind, wants=[want.tensor for want in same], **sweep)
        for kind, same in kinds.items()
    }
    found: dict[Want, Any] = {}
    for kind, same in kinds.items():
        if (held := cache.get(keys[kind])) is not None:
            found |= dict(zip(same, unpacked(kind[0], held, len(same)), strict=True))
    missing = [want for want in wants if want not in found]
    fresh = collect(model, missing, rows, progress, hard=hard, threads=threads, tensors=tensors)
    for kind in dict.fromkeys((want.kind, want.hard) for want in missing):
        arrays = packed(kind[0], [fresh[want] for want in kinds[kind]])
        if sum(values.nbytes for values in arrays.values()) <= LARGEST:
            cache.put(keys[kind], arrays)
    return {want: found.get(want, fresh.get(want)) for want in wants}


def rows_sha256(rows: Rows) -> str:
    """The sha256 of calibration rows as they are batched, hexadecimal: feeds, padding and order."""
    digest = hashlib.sha256()
    for batch in rows:
        for name, values in sorted({**batch.feeds, "": batch.mask}.items()):
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()
