"""A sweep over calibration rows whose statistics are kept, for whoever wants them of an equal model and equal rows."""

import hashlib
from collections.abc import Sequence
from typing import Any

from onnxslim_bert.cache import Cache, key_of
from onnxslim_bert.calibration.collect import Progress, Rows, collect
from onnxslim_bert.calibration.packing import packed, unpacked
from onnxslim_bert.contract import Want
from onnxslim_bert.model import Model

LARGEST = 256e6  # bytes of statistics of one kind that are kept: they are in memory twice meanwhile


def collect_once(
    cache: Cache,
    model: Model,
    wants: Sequence[Want],
    rows: Rows,
    progress: Progress | None = None,
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
