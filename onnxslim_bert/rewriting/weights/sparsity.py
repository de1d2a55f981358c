"""Which weights of a matrix to set to zero. Numbers in, a choice out."""

import numpy as np

from onnxslim_bert.arrays import Array

GROUP, KEPT_OF_GROUP = 4, 2  # the 2:4 pattern


def importance(weight: Array, square: Array | None = None) -> Array:
    """How much each weight is worth, [d_in, d_out], of a weight [d_in, d_out].

    Its magnitude; with the mean square of each input channel, square [d_in], its magnitude times the root mean square
    of what it multiplies (Wanda, Sun et al. 2023, https://arxiv.org/abs/2306.11695).
    """
    magnitude: Array = np.abs(weight)
    return magnitude if square is None else magnitude * np.sqrt(square)[:, None]


def keep_share(scores: Array, share: float) -> Array:
    """Where weights stay, bool [d_in, d_out]: in each output, all but its round(share * d_in) lowest scores."""
    order = np.argsort(scores, axis=0, kind="stable")
    kept = np.ones(scores.shape, bool)
    np.put_along_axis(kept, order[: round(share * len(scores))], False, axis=0)
    return kept


def keep_two_of_four(scores: Array) -> Array:
    """Where weights stay, bool [d_in, d_out]: the two highest scores of every four consecutive inputs of an output.

    A last group of fewer than four inputs keeps two as well (Mishra et al. 2021, https://arxiv.org/abs/2104.08378).
    """
    d_in, d_out = scores.shape
    filled = np.pad(scores, ((0, -d_in % GROUP), (0, 0)), constant_values=-np.inf)
    groups = filled.reshape(-1, GROUP, d_out)
    order = np.argsort(-groups, axis=1, kind="stable")
    kept = np.zeros(groups.shape, bool)
    np.put_along_axis(kept, order[:, :KEPT_OF_GROUP], True, axis=1)
    return kept.reshape(-1, d_out)[:d_in]
