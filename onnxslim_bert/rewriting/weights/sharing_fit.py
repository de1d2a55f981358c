"""Fit one matrix that several layers can share, by least squares."""

from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array


@dataclass(frozen=True)
class Dense:
    """A dense layer y = x @ weight + bias, with what calibration rows say of its inputs x.

    weight [d_in, d_out]; bias [d_out] or None. Of x: mean [d_in]; covariance [d_in, d_in], about the mean, or about
    zero when there is no bias (which could not make up for a moved mean of y); rows [n, d_in], a sample.
    """

    weight: Array
    bias: Array | None
    mean: Array
    covariance: Array
    rows: Array


class SharedFit:
    """The matrix W with the least sum of squared output errors over several layers.

    W = M + (sum C_l + ridge)⁻¹ sum C_l (W_l - M), with the covariance C_l of each layer's input and the mean M of the
    layers' matrices. Layers are added one by one; covariances and matrices are summed, not kept.
    """

    def __init__(self) -> None:
        self._covariance: Array | float = 0.0
        self._products: Array | float = 0.0
        self._weight: Array | float = 0.0
        self._layers: list[_Target] = []

    def add(self, dense: Dense) -> None:
        """Let W serve this layer too."""
        self._covariance = self._covariance + dense.covariance
        self._products = self._products + dense.covariance @ dense.weight
        self._weight = self._weight + dense.weight
        mean = dense.mean if dense.bias is not None else np.zeros_like(dense.mean)
        self._layers.append(
            _Target(mean, mean @ dense.weight, dense.bias, dense.rows - mean, (dense.rows - mean) @ dense.weight)
        )

    def solve(self, ridge: float) -> tuple[Array, list[Array | None], list[float]]:
        """The shared W [d_in, d_out], and for each layer, as added, its new bias [d_out] (None without) and its error.

        ridge: how strongly W is pulled towards M, as a share of the inputs' mean variance. A new bias keeps the mean of
        its layer's outputs. An error is |new - old| / |old| of the outputs on the layer's sample, their means aside.
        """
        covariance, mean = np.asarray(self._covariance, np.float64), np.asarray(self._weight) / len(self._layers)
        missing = self._products - covariance @ mean
        covariance[np.diag_indices_from(covariance)] += ridge * np.trace(covariance) / len(covariance) or 1.0
        shared: Array = (mean + np.linalg.solve(covariance, missing)).astype(np.float32)
        biases = [
            None if t.bias is None else (t.bias + t.output_mean - t.mean @ shared).astype(np.float32)
            for t in self._layers
        ]
        return shared, biases, [_relative(t.rows @ shared - t.outputs, t.outputs) for t in self._layers]


@dataclass(frozen=True)
class _Target:
    """What one layer computed before: its mean input and output, its bias, and some rows of both, less the means."""

    mean: Array
    output_mean: Array
    bias: Array | None
    rows: Array
    outputs: Array


def _relative(difference: Array, exact: Array) -> float:
    return float(np.linalg.norm(difference)) / max(float(np.linalg.norm(exact)), 1e-30)
