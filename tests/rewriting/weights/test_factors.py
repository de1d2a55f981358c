"""The axes of low rank are the best ones: what they lose is the tail of the singular values."""

import numpy as np
import pytest

from onnxslim_bert.rewriting.int8.quantizers import quantize_rows
from onnxslim_bert.rewriting.weights.factors import (
    RIDGE,
    Products,
    channel_shares,
    principal_axes,
    product_axes,
    rank_of_energy,
    rotation,
    weighted_moments,
)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_weighted_moments_are_those_of_repeated_rows(rng):
    """A row of weight 3 counts as three rows, over more rows than are taken at a time."""
    rows, weights = rng.standard_normal((5003, 5)).astype(np.float32), rng.integers(1, 4, 5003)
    repeated = np.repeat(rows, weights, axis=0).astype(np.float64)
    mean, covariance = weighted_moments(rows, weights)
    np.testing.assert_allclose(mean, repeated.mean(0), atol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(repeated.T, bias=True), atol=1e-6)


def test_principal_axes_lose_the_tail_of_the_singular_values(rng):
    rows = rng.standard_normal((40, 7)) @ rng.standard_normal((7, 7))
    rows -= rows.mean(0)
    values = np.linalg.svd(rows, compute_uv=False)
    variances, axes = principal_axes(rows.T @ rows)
    np.testing.assert_allclose(variances, values**2)
    for rank in range(8):
        kept = axes[:, :rank]
        assert np.linalg.norm(rows - rows @ kept @ kept.T) == pytest.approx(np.linalg.norm(values[rank:]), abs=1e-9)


@pytest.mark.parametrize("d_out", [6, 9])
def test_product_axes_lose_the_tail_of_the_products_singular_values(rng, d_out):
    """On the rows themselves and on the ridge's share of the weight together."""
    rows, weight = rng.standard_normal((50, 6)) * [9, 5, 3, 1, 0.3, 0.1], rng.standard_normal((6, d_out))
    rows -= rows.mean(0)
    covariance = rows.T @ rows / 50
    ridge = np.sqrt(RIDGE * np.trace(covariance) / 6) * np.eye(6)
    seen = np.concatenate([rows / np.sqrt(50), ridge])
    values = np.linalg.svd(seen @ weight, compute_uv=False)
    variances, axes = product_axes(weight, covariance)
    np.testing.assert_allclose(variances, values[:6] ** 2, rtol=1e-6)
    for rank in (1, 3, 6):
        kept = axes[:, :rank]
        error = np.linalg.norm(seen @ (weight - weight @ kept @ kept.T))
        assert error == pytest.approx(np.linalg.norm(values[rank:]), abs=1e-7)


def test_data_aware_factors_lose_less_than_plain_ones(rng):
    rows, weight = rng.standard_normal((50, 6)) * [9, 5, 3, 1, 0.3, 0.1], rng.standard_normal((6, 9))
    _, axes = product_axes(weight, rows.T @ rows / 50)
    plain = np.linalg.svd(weight)[2].T
    errors = [np.linalg.norm(rows @ (weight - weight @ a[:, :3] @ a[:, :3].T)) for a in (axes, plain)]
    assert errors[0] < 0.5 * errors[1]


def test_rows_that_fill_no_space_still_rank_every_axis(rng):
    """Two calibration rows, or none that vary: the full rank is the weight itself."""
    weight = rng.standard_normal((5, 7))
    for covariance in (np.outer(row := rng.standard_normal(5), row), np.zeros((5, 5))):
        _, axes = product_axes(weight, covariance)
        np.testing.assert_allclose(weight @ axes @ axes.T, weight, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("vary", [0.0, 1e-7, 1e-3, 1.0])
def test_rows_that_hardly_vary_beside_their_mean_have_factors(rng, scale, vary):
    """Rounding leaves their moments with variances below 0; at the full rank the products are those of the weight."""
    rows = scale * (rng.standard_normal(8) + vary * rng.standard_normal((64, 8)))
    mean, weight = rows.mean(0), rng.standard_normal((8, 6))
    covariance = rows.T @ rows / 64 - np.outer(mean, mean)
    left, right, shift = Products.of_inputs([weight], mean, covariance).factors(6)
    np.testing.assert_allclose(rows @ left @ right + shift, rows @ weight, atol=1e-9 * scale)


def test_a_weight_of_low_rank_has_axes_without_infinities(rng):
    weight = rng.standard_normal((5, 2)) @ rng.standard_normal((2, 7))
    _, axes = product_axes(weight, np.eye(5))
    np.testing.assert_allclose(weight @ axes @ axes.T, weight, atol=1e-9)


def test_factors_keep_the_mean_product(rng):
    """However few axes are kept."""
    rows, weight = rng.standard_normal((30, 5)) + 4, rng.standard_normal((5, 7))
    mean = rows.mean(0)
    products = Products.of_inputs([weight[:, :3], weight[:, 3:]], mean, np.cov(rows.T, bias=True))
    left, right, shift = products.factors(2)
    assert (left.shape, right.shape, shift.shape) == ((5, 2), (2, 7), (7,))
    np.testing.assert_allclose(mean @ left @ right + shift, mean @ weight, atol=1e-9)


def test_moments_of_inputs_and_of_outputs_give_the_same_factors(rng):
    rows, weight = rng.standard_normal((300, 6)) * [9, 5, 3, 1, 0.3, 0.1], rng.standard_normal((6, 6))
    given = rows @ weight
    ends = [
        Products.of_inputs([weight], rows.mean(0), np.cov(rows.T, bias=True)),
        Products.of_outputs(weight, given.mean(0), np.cov(given.T, bias=True)),
    ]
    (left, right, shift), (other_left, other_right, other_shift) = (products.factors(2) for products in ends)
    np.testing.assert_allclose(
        rows @ left @ right + shift, rows @ other_left @ other_right + other_shift, atol=0.02 * np.abs(given).max()
    )


def test_every_channel_has_the_same_say_in_the_shares(rng):
    """Whatever its size: against the definition, from what remains of each channel."""
    rows = rng.standard_normal((50, 5)) @ rng.standard_normal((5, 5)) * [1000, 1, 1, 1, 0]
    rows -= rows.mean(0)
    variances, axes = principal_axes(rows.T @ rows)
    shares = np.cumsum(channel_shares(variances, axes))
    for rank in range(1, 6):
        kept = axes[:, :rank]
        explained = np.square(rows @ kept @ kept.T).sum(0)[:4] / np.square(rows).sum(0)[:4]
        assert shares[rank - 1] == pytest.approx(explained.sum() / 5)


@pytest.mark.parametrize(("energy", "rank"), [(0.5, 1), (0.6, 1), (0.61, 2), (0.9, 2), (0.95, 3), (1, 3)])
def test_the_rank_is_the_least_that_holds_the_energy(energy, rank):
    assert rank_of_energy(np.array([6.0, 3.0, 1.0, 0.0]), energy) == rank


def test_a_rotation_is_orthogonal_and_always_the_same():
    turned = rotation(7)
    np.testing.assert_allclose(turned @ turned.T, np.eye(7), atol=1e-12)
    np.testing.assert_array_equal(turned, rotation(7))


def test_a_rotation_loses_less_in_int8_than_the_axes_themselves(rng):
    """Rows whose first elements are the largest waste the levels of the others."""
    rows, turned = rng.standard_normal((200, 32)) * np.geomspace(3, 0.5, 32), rotation(32)

    def lost(left, right):
        integers, scales = quantize_rows(left)
        return np.linalg.norm(integers * scales @ right - rows)

    assert lost(rows @ turned, turned.T) < 0.85 * lost(rows, np.eye(32))
