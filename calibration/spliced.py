"""Long calibration rows, made by joining short ones: for models that will run on longer texts than the data holds."""

from collections.abc import Iterator, Sequence

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.collect import Rows


def spliced(rows: Rows, length: int) -> list[Batch]:
    """The batches of `rows` with every row made `length` tokens long by joining on the rows behind it, without padding.

    After the last row the first one follows. Of a row that is joined on, the token at position 0 is left out, as one
    text has one [CLS]. Example: rows C a b and C d, with length 6, give C a b d a b and C d a b d a.
    Batches hold as many rows as before; inputs other than [batch, seq] stay as they are.
    """
    batches = list(rows)
    ends = np.cumsum([len(batch.rows) for batch in batches])
    feeds = [dict(batch.feeds) for batch in batches]
    for name in batches[0].feeds:
        if all(batch.feeds[name].shape == batch.mask.shape for batch in batches):
            long = _followed([row for batch in batches for row in _real(batch, name)], length)
            for feed, part in zip(feeds, np.split(long, ends[:-1]), strict=True):
                feed[name] = part
    full = [np.ones((len(batch.rows), length), bool) for batch in batches]
    return [Batch(feed, mask, batch.rows) for feed, mask, batch in zip(feeds, full, batches, strict=True)]


def _followed(rows: Sequence[Array], length: int) -> Array:
    """Each row [its own length] and then the others in turn, without their first values, [rows, length]."""
    stream = np.concatenate([row[1:] for row in rows])
    starts = np.cumsum([0, *(len(row) - 1 for row in rows[:-1])])
    long = [np.resize(np.roll(stream, -start), length - 1) for start in starts]
    return np.stack([np.append(row[:1], behind) for row, behind in zip(rows, long, strict=True)])


def _real(batch: Batch, name: str) -> Iterator[Array]:
    """The input `name` of each row of a batch, padding left out."""
    return (values[mask] for values, mask in zip(batch.feeds[name], batch.mask, strict=True))
