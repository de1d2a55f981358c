"""Which inputs of a matrix can go, and the matrix that makes up for them, in closed form.

For rows x with second moments H, a matrix V in the place of W changes the results by tr((V - W)ᵀ H (V - W)) a row. The
best V without the inputs in `gone` is W - H⁻¹[:, gone] (H⁻¹[gone, gone])⁻¹ W[gone], and what it costs is
tr(W[gone]ᵀ (H⁻¹[gone, gone])⁻¹ W[gone]) (optimal brain surgeon, Hassibi and Stork 1993; for structures, Kurtic et al.
2023, https://arxiv.org/abs/2302.04089).
"""

from collections.abc import Sequence

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Gram

LARGEST_SHARE = 1 / 16  # of the units that are left go at once
LEAST_VARIANCE = 1e-12  # of the mean's square: what float32 hardly tells apart from it


def moments(grams: Sequence[Gram]) -> tuple[Array, Array]:
    """The covariance [n, n] and the mean [n] of the rows behind `grams`, together.

    An input that varies less beside its mean than rounding makes it is one that does not vary: no variance is below 0.
    """
    rows = sum(gram.rows for gram in grams)
    mean = np.sum([gram.sums for gram in grams], 0) / rows
    covariance = grams[0].products / rows
    for gram in grams[1:]:
        covariance += gram.products / rows
    covariance -= np.outer(mean, mean)
    constant = np.diag(covariance) < LEAST_VARIANCE * mean**2
    covariance[constant] = covariance[:, constant] = 0
    return covariance, mean


def with_ridge(covariance: Array, ridge: float) -> Array:
    """`covariance` [n, n] with `ridge` times its mean variance added on the diagonal.

    It penalizes every change of the fitted matrix, and makes the inverse exist.
    """
    hessian = covariance.copy()
    hessian[np.diag_indices(len(hessian))] += ridge * float(np.trace(covariance)) / len(covariance) or 1.0
    return hessian


def eliminate(hessian: Array, weight: Array, unit: int, counts: Sequence[int] = ()) -> tuple[Array, dict[int, Array]]:
    """Remove units one after the other: the order in which they go, and the refitted matrix at each of `counts`.

    hessian [n, n], weight [n, d_out]; a unit is `unit` neighbouring inputs. Greedy: the units whose removal costs least
    go, a few at a time, and the rest of the matrix is refitted before the next are chosen. Returns the order [units],
    first to go in front, and for each count the matrix [count * unit, d_out] of the units that are left then, in
    ascending order, with the values that `refit` gives. Example: 12 heads of 64 inputs have n=768, unit=64; counts=[9]
    gives the order of all 12 and a matrix of 576 rows.
    """
    inverse, weight = np.linalg.inv(hessian), weight.astype(np.float64)
    alive = np.arange(len(weight) // unit)
    order: list[Array] = []
    fitted: dict[int, Array] = {}
    while len(alive):
        if len(alive) in counts:
            fitted[len(alive)] = weight.astype(np.float32)
        stop = max((count for count in counts if count < len(alive)), default=0)
        most = min(max(1, int(len(alive) * LARGEST_SHARE)) if unit == 1 else 1, len(alive) - stop)
        ranked = np.argsort(_costs(inverse, weight, unit), kind="stable")
        left = np.sort(ranked[most:])
        order.append(alive[ranked[:most]])
        gone, rest = channels(ranked[:most], unit), channels(left, unit)
        gain = np.linalg.solve(inverse[np.ix_(gone, gone)], inverse[np.ix_(gone, rest)])
        weight = weight[rest] - gain.T @ weight[gone]
        smaller = inverse[np.ix_(rest, rest)]
        smaller -= inverse[np.ix_(rest, gone)] @ gain
        inverse, alive = smaller, alive[left]
    return np.concatenate(order), fitted


def refit(hessian: Array, weight: Array, kept: Array) -> Array:
    """The matrix [n, d_out] that is zero outside the inputs `kept` and nearest to `weight` in its results."""
    gone = np.setdiff1d(np.arange(len(weight)), kept)
    fitted = np.zeros_like(weight)
    made_up = np.linalg.solve(hessian[np.ix_(kept, kept)], hessian[np.ix_(kept, gone)] @ weight[gone])
    fitted[kept] = weight[kept] + made_up
    return fitted


def squared_error(covariance: Array, difference: Array) -> float:
    """The mean over rows of |x @ difference|², the mean of x aside. covariance [n, n], difference [n, d_out]."""
    return float(np.sum((covariance @ difference) * difference))


def channels(units: Array, unit: int) -> Array:
    """The inputs of `units`, each `unit` neighbours. Example: units [0, 2] with unit=3 are [0, 1, 2, 6, 7, 8]."""
    inputs: Array = (np.asarray(units)[:, None] * unit + np.arange(unit)).reshape(-1)
    return inputs


def _costs(inverse: Array, weight: Array, unit: int) -> Array:
    """What removing each unit costs, [units]."""
    if unit == 1:
        costs: Array = np.square(weight).sum(1) / np.diag(inverse)
        return costs
    blocks = [slice(start, start + unit) for start in range(0, len(weight), unit)]
    return np.array([np.sum(weight[b] * np.linalg.solve(inverse[b, b], weight[b])) for b in blocks])
