"""One matrix for several layers: the least-squares fit and its errors."""

import numpy as np
import pytest

from onnxslim_bert.arrays import Array
from onnxslim_bert.rewriting.weights.sharing_fit import Dense, SharedFit

ROWS = 301


def dense(shape: tuple[int, int], seed: int, *, biased: bool = True) -> tuple[Dense, Array]:
    """A random dense layer and the rows [ROWS, d_in] behind its moments, which are correlated and not centred."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(ROWS, shape[0])) @ rng.normal(size=(shape[0], shape[0])) + rng.normal(size=shape[0])
    mean = rows.mean(0)
    covariance = rows.T @ rows / ROWS - (np.outer(mean, mean) if biased else 0)
    weight, bias = (rng.normal(size=size).astype(np.float32) for size in (shape, shape[1]))
    return Dense(weight, bias if biased else None, mean, covariance.astype(np.float32), rows), rows


def fit_shared(layers: list[Dense], ridge: float) -> tuple[Array, list[Array | None], list[float]]:
    fit = SharedFit()
    for made in layers:
        fit.add(made)
    return fit.solve(ridge)


def test_the_fit_is_the_least_squares_solution_with_a_bias_for_each_layer():
    """As numpy finds it on the rows themselves, with one column of ones for each layer."""
    layers = [dense((7, 4), seed) for seed in (1, 2, 3)]
    weight, biases, _ = fit_shared([made for made, _ in layers], ridge=1e-9)
    inputs = np.vstack([np.hstack([rows, np.tile(np.eye(3)[i], (ROWS, 1))]) for i, (_, rows) in enumerate(layers)])
    targets = np.vstack([rows @ made.weight + made.bias for made, rows in layers])
    expected = np.linalg.lstsq(inputs, targets)[0]
    np.testing.assert_allclose(weight, expected[:7], atol=2e-4)
    np.testing.assert_allclose(biases, expected[7:], atol=2e-4)


def test_errors_are_those_of_the_outputs():
    layers = [dense((7, 4), seed) for seed in (1, 2)]
    weight, biases, errors = fit_shared([made for made, _ in layers], ridge=1e-3)
    for (made, rows), bias, error in zip(layers, biases, errors, strict=True):
        exact = rows @ made.weight + made.bias
        actual = rows @ weight + bias
        np.testing.assert_allclose(actual.mean(0), exact.mean(0), atol=1e-4)
        assert error == pytest.approx(np.linalg.norm(actual - exact) / np.linalg.norm(exact - exact.mean(0)), rel=1e-3)


def test_without_biases_the_outputs_themselves_are_fitted():
    layers = [dense((7, 4), seed, biased=False) for seed in (1, 2)]
    weight, biases, _ = fit_shared([made for made, _ in layers], ridge=1e-9)
    targets = np.vstack([rows @ made.weight for made, rows in layers])
    np.testing.assert_allclose(weight, np.linalg.lstsq(np.vstack([r for _, r in layers]), targets)[0], atol=2e-4)
    assert biases == [None, None]


def test_equal_layers_lose_nothing():
    made, _ = dense((7, 4), 1)
    weight, (bias, _), errors = fit_shared([made, made], ridge=1e-9)
    np.testing.assert_allclose(weight, made.weight, atol=1e-4)
    np.testing.assert_allclose(bias, made.bias, atol=1e-4)
    assert max(errors) < 1e-4


def test_inputs_that_are_always_zero_are_no_trouble():
    made = Dense(np.ones((3, 2), np.float32), None, np.zeros(3), np.zeros((3, 3), np.float32), np.zeros((5, 3)))
    weight, _, errors = fit_shared([made, made], ridge=1e-3)
    assert np.isfinite(weight).all()
    assert errors == [0, 0]
