"""Replace a matrix by two thin ones: find the axes along which its products vary most, and how many to keep."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array

CHUNK = 4096  # rows taken to float64 at a time
RIDGE = 1e-3  # of the inputs' mean variance; on held-back rows 1e-6 to 1e-1 do equally well
NEGLIGIBLE = 1e-14  # of the largest variance: what is left of rounding


@dataclass(frozen=True)
class Products:
    """The products x @ weight on calibration rows x, and the axes along which they vary most.

    weight [d_in, d_out]: the weights of one or several layers side by side, each column divided by its entry in scales
    [d_out]. mean [d_out]: of the products, divided likewise. variances [rank], largest first: along each of axes
    [d_out, rank].
    """

    weight: Array
    mean: Array
    scales: Array
    variances: Array
    axes: Array

    @classmethod
    def of_inputs(cls, weights: Sequence[Array], mean: Array, covariance: Array) -> "Products":
        """From the mean [d_in] and covariance [d_in, d_in] of the inputs.

        Scales bring the products of each weight to the same mean variance, so that query, key and value count alike.
        """
        deviations = [np.sqrt(max(np.mean((covariance @ weight * weight).sum(0)), 0.0)) or 1.0 for weight in weights]
        scales = np.repeat(deviations, [weight.shape[1] for weight in weights])
        weight = np.concatenate(weights, axis=1) / scales
        return cls(weight, mean @ weight, scales, *product_axes(weight, covariance))

    @classmethod
    def of_outputs(cls, weight: Array, mean: Array, covariance: Array) -> "Products":
        """From the mean [d_out] and covariance [d_out, d_out] of the products themselves."""
        return cls(weight, mean, np.ones(len(mean)), *principal_axes(covariance))

    def factors(self, rank: int) -> tuple[Array, Array, Array]:
        """left [d_in, rank], right [rank, d_out] and shift [d_out]: x @ left @ right + shift has the same mean."""
        kept = self.axes[:, :rank] @ rotation(rank)
        shift = self.mean - self.mean @ kept @ kept.T
        return self.weight @ kept, kept.T * self.scales, shift * self.scales


def weighted_moments(rows: Array, weights: Array) -> tuple[Array, Array]:
    """rows [n, width], weights [n] -> their weighted mean [width] and covariance [width, width], in float64."""
    share = weights / weights.sum(dtype=np.float64)
    parts = [slice(start, start + CHUNK) for start in range(0, len(rows), CHUNK)]
    mean = np.sum([share[part] @ rows[part] for part in parts], axis=0)
    covariance = np.zeros((rows.shape[1], rows.shape[1]))
    for part in parts:
        centred = rows[part] - mean
        covariance += (centred * share[part, None]).T @ centred
    return mean, covariance


def project(rows: Array, mean: Array, axes: Array) -> Array:
    """(rows - mean) @ axes, float32 [n, rank]. rows [n, width], mean [width], axes [width, rank]."""
    parts = range(0, len(rows), CHUNK)
    return np.concatenate([((rows[i : i + CHUNK] - mean) @ axes).astype(np.float32) for i in parts])


def principal_axes(covariance: Array) -> tuple[Array, Array]:
    """covariance [n, n] -> variances [n], largest first, and their axes [n, n], one a column.

    Of all `rank`-dimensional projections of centred rows x, x @ axes[:, :rank] @ axes[:, :rank].T loses least: the sum
    of the other variances (Eckart and Young 1936, https://doi.org/10.1007/BF02288367).
    """
    variances, axes = np.linalg.eigh(covariance)
    return np.maximum(variances[::-1], 0), axes[:, ::-1]


def product_axes(weight: Array, covariance: Array) -> tuple[Array, Array]:
    """The principal axes of products x @ weight: variances [rank], largest first, and axes [d_out, rank].

    weight [d_in, d_out], rank the lesser of both; covariance [d_in, d_in] of the inputs x. With a root of it,
    covariance = R.T @ R, the axes are the right singular vectors of R @ weight. Of all matrices of that rank,
    weight @ axes[:, :rank] @ axes[:, :rank].T is then the nearest to `weight` on those inputs. The covariance gets a
    small ridge first, so that every axis has a rank even where the rows vary in few directions (Chen et al. 2021,
    https://proceedings.neurips.cc/paper/2021/hash/f56de5ef149cf0aedcc8f4797031e229-Abstract.html). Its root is taken
    along its own axes: of rows that hardly vary beside their mean, rounding leaves variances below 0, which count as 0.
    """
    held, directions = principal_axes(covariance)
    root = np.sqrt(held + (RIDGE * held.mean() or RIDGE))[:, None] * (directions.T @ weight)
    variances, left = (found[..., : weight.shape[1]] for found in principal_axes(root @ root.T))
    kept = variances > NEGLIGIBLE * variances[0]
    return variances, root.T @ np.divide(left, np.sqrt(variances), out=np.zeros_like(left), where=kept)


def channel_shares(variances: Array, axes: Array) -> Array:
    """How much of a channel's variance each axis holds, on average over the channels, [rank].

    variances [rank], axes [channels, rank]. Example: [0.6, 0.3, 0.1] says that two axes hold 0.9 of it.
    """
    held = axes**2 * variances
    total = held.sum(1, keepdims=True)
    shares: Array = np.divide(held, total, out=np.zeros_like(held), where=total > 0).mean(0)
    return shares


def rank_of_energy(variances: Array, energy: float) -> int:
    """The least rank whose leading variances are at least `energy` of their sum.

    variances [axes], largest first; energy in (0, 1]. Example: 2 for [0.6, 0.3, 0.1] and 0.9.
    """
    share = np.cumsum(variances) / max(variances.sum(), np.finfo(np.float64).tiny)
    return int(np.searchsorted(share, energy * (1 - 1e-12))) + 1


def rotation(rank: int) -> Array:
    """A random orthogonal matrix R [rank, rank], the same at every call.

    left @ R @ R.T @ right equals left @ right, so R changes no product. But it spreads the large values of a few
    leading axes over all of them, so that int8 with one scale a row loses less (Ashkboos et al. 2024,
    https://arxiv.org/abs/2404.00456).
    """
    orthogonal, triangle = np.linalg.qr(np.random.default_rng(0).standard_normal((rank, rank)))
    return orthogonal * np.sign(np.diag(triangle))
