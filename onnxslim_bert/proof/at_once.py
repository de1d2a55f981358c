"""Whether rows that are answered in one batch get the answers that each gets alone."""

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batches
from onnxslim_bert.errors import BoundsError, ModelError
from onnxslim_bert.graph.sessions import run

TOGETHER = 1024  # tokens of rows of one length that are answered at once, where that changes no answer
SAME = 1e-5  # of the largest answer, or of 1 where all are smaller: what float32 rounds


def same_at_once(session: ort.InferenceSession, batches: Batches) -> bool:
    """Whether two rows of the first batch of several get the answers together that each gets alone, but for rounding.

    Rows of one length need no padding, so that these are the same unless activations are quantized by their range in
    the batch, for instance. False where no batch has several rows, and where the model does not run on two.
    """
    first = next((batch for batch in batches if len(batch.rows) > 1), None)
    if first is None:
        return False
    rows = [{name: values[i : i + 1] for name, values in first.feeds.items()} for i in range(2)]
    try:
        both = run(session, {name: values[:2] for name, values in first.feeds.items()})
        alone = [run(session, feeds) for feeds in rows]
    except (ModelError, BoundsError):
        return False
    if not all(values.ndim and len(values) == len(rows) for values in both):
        return False
    each = [[values[i : i + 1] for values in both] for i in range(len(rows))]
    return all(_same(*pair) for ours, own in zip(each, alone, strict=True) for pair in zip(ours, own, strict=True))


def _same(ours: Array, theirs: Array) -> bool:
    if ours.shape != theirs.shape or ours.dtype.kind != "f":
        return bool(np.array_equal(ours, theirs))
    size = np.abs(theirs[np.isfinite(theirs)]).max(initial=1)
    return bool(np.allclose(ours, theirs, rtol=0, atol=SAME * size, equal_nan=True))
