"""Whether padding stays apart in an attention whose formula is not known: what it holds reaches no real token."""

from collections.abc import Iterator

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.model.attention_form import LONGEST, MEMORY
from onnxslim_bert.model.horizon import Horizon
from onnxslim_bert.model.region import FURTHER, Region
from onnxslim_bert.model.token_masks import TokenMask, has_fixed_length, probe_size

ROWS = 2  # of a probe


def padding_mask(region: Region) -> str | None:
    """The name of the mask whose zeros keep tokens apart: what query, key and value hold there moves no other token.

    Proven for rows whose position 0 is real, by running the region with other values at the zeros, on short rows and on
    rows beyond every number that positions are compared with. Where position 0 is padding, it may see padding alone, in
    a window for instance, and then read it after all. None where no mask does.
    """
    if region.stranger is not None:
        return None
    return next((mask.tensor.name for mask in region.candidates if _keeps_apart(region, mask)), None)


def _keeps_apart(region: Region, mask: TokenMask) -> bool:
    try:
        return all(
            region.hides(region.feeds(*holes.shape), mask, holes)
            for length in _lengths(region)
            for holes in _holes(length)
        )
    except ValueError:  # it does not run by itself
        return False


def _lengths(region: Region) -> list[int]:
    _, seq = probe_size(region.graph)
    if has_fixed_length(region.graph):
        return [seq]
    met = region.horizon()
    further = [length for length in met.lengths if seq < length <= LONGEST] if isinstance(met, Horizon) else []
    return [seq, seq + FURTHER, *further[:1]]


def _holes(length: int) -> Iterator[Array]:
    """Rows [2, length], 0 where a token is padding, behind position 0: at random places, on the right, on the left."""
    rows = 1 if length > MEMORY else ROWS
    rng, places = np.random.default_rng(length), np.arange(length)
    for real in (rng.random((rows, length)) < 0.6, np.stack([places < length // 2, places >= length // 2])[:rows]):
        real[:, 0] = True
        yield real.astype(np.int64)
