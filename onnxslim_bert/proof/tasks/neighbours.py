"""Whether the texts nearest to a text stay the same: what a change of embeddings does to a search."""

import numpy as np

from onnxslim_bert.arrays import Array

NEAREST = 10
ASKED = 2048  # texts at most whose neighbours are compared, evenly apart
AT_ONCE = 256


def neighbours_kept(base: Array, candidate: Array) -> Array:
    """Of each text's 10 nearest by cosine in `base`, the share that are so in `candidate`, float64 [texts asked].

    base, candidate [texts, width], finite. Of few texts fewer are near: at most half of the others. Empty for less
    than 3 texts.
    """
    near = min(NEAREST, (len(base) - 1) // 2)
    if near < 1:
        return np.zeros(0)
    ours, theirs = of_length_one(base), of_length_one(candidate)
    asked = np.unique(np.linspace(0, len(base) - 1, min(len(base), ASKED)).round().astype(np.int64))
    shares = [_shared(ours, theirs, asked[start : start + AT_ONCE], near) for start in range(0, len(asked), AT_ONCE)]
    return np.concatenate(shares)


def _shared(ours: Array, theirs: Array, asked: Array, near: int) -> Array:
    found = []
    for vectors in (ours, theirs):
        cosines = vectors[asked] @ vectors.T
        cosines[np.arange(len(asked)), asked] = -np.inf
        is_near = np.zeros(cosines.shape, bool)
        # a stable order, so that texts which are the same in both models tie in the same way
        np.put_along_axis(is_near, np.argsort(-cosines, axis=1, kind="stable")[:, :near], True, axis=1)
        found.append(is_near)
    shares: Array = (found[0] & found[1]).sum(axis=1) / near
    return shares


def of_length_one(vectors: Array) -> Array:
    """Vectors [rows, width] at length 1, float64; those of zeros stay, and those that are not finite become NaN."""
    values = vectors.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        unit: Array = np.divide(values, lengths, out=values.copy(), where=lengths > 0)
    return unit
