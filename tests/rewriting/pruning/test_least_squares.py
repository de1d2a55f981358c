"""Closed forms against what they are the closed form of: least squares solved whole, and every subset tried."""

from itertools import combinations

import numpy as np
import pytest

from onnxslim_bert.calibration.observers import Gram, SecondMoments
from onnxslim_bert.rewriting.pruning.least_squares import channels, eliminate, moments, refit, squared_error, with_ridge

RIDGE = 0.03


def gram(rows):
    return Gram(rows.T @ rows, rows.sum(0), len(rows))


@pytest.fixture
def rows():
    """[40, 6], correlated, with a mean."""
    rng = np.random.default_rng(3)
    return rng.standard_normal((40, 6)) @ rng.standard_normal((6, 6)) + rng.standard_normal(6)


@pytest.fixture
def weight():
    return np.random.default_rng(4).standard_normal((6, 5))


def lost(hessian, weight, kept):
    """What keeping these inputs costs after a refit."""
    return squared_error(hessian, refit(hessian, weight, np.array(kept, np.int64)) - weight)


def test_moments_are_those_of_all_rows(rows):
    """However the rows come in."""
    covariance, mean = moments([gram(rows[:13]), gram(rows[13:])])
    np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True))
    np.testing.assert_allclose(mean, rows.mean(0))


@pytest.mark.parametrize("vary", [0.0, 1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("count", [1, 7, 2000])
def test_no_variance_is_below_0(vary, count):
    """However little float32 rows vary beside their mean: moments are positive, and near those in float64."""
    rng, observer = np.random.default_rng(3), SecondMoments()
    rows = (9 * rng.standard_normal(96) * (1 + vary * rng.standard_normal((count, 96)))).astype(np.float32)
    for start in range(0, count, 500):
        observer.update(rows[start : start + 500])
    covariance, mean = moments([observer.result()])
    exact = np.cov(rows.T.astype(np.float64), bias=True)
    np.testing.assert_allclose(covariance, exact, rtol=1e-5, atol=1e-5 * exact.max() + 1e-12 * np.square(rows).max())
    np.testing.assert_allclose(mean, rows.mean(0, dtype=np.float64), rtol=1e-6)
    assert np.linalg.eigvalsh(covariance)[0] >= -1e-4 * np.trace(exact) / 96  # which every ridge is more than
    assert vary or not covariance.any()


def test_a_refit_is_ridge_regression(rows, weight):
    """numpy's lstsq on centred rows, with the ridge as further rows that hold the matrix to what it was."""
    kept, gone = np.array([0, 2, 5]), [1, 3, 4]
    covariance, mean = moments([gram(rows)])
    centred = (rows - mean) / np.sqrt(len(rows))
    pull = np.sqrt(RIDGE * np.trace(covariance) / 6) * np.eye(6)
    stacked = np.concatenate([centred, pull])
    expected = np.linalg.lstsq(stacked[:, kept], stacked @ weight)[0]
    fitted = refit(with_ridge(covariance, RIDGE), weight, kept)
    np.testing.assert_allclose(fitted[kept], expected)
    assert not fitted[gone].any()


def test_the_error_of_a_matrix_is_that_of_its_results(rows, weight):
    """The mean aside, which goes into the bias."""
    covariance, mean = moments([gram(rows)])
    expected = np.square((rows - mean) @ weight).sum(1).mean()
    assert squared_error(covariance, weight) == pytest.approx(expected)


@pytest.mark.parametrize("unit", [1, 2, 3])
def test_each_unit_that_goes_is_the_cheapest_of_those_left(rows, weight, unit):
    """By enumeration: every unit that is left is tried, refitted from scratch."""
    hessian = with_ridge(moments([gram(rows)])[0], RIDGE)
    left, expected = list(range(6 // unit)), []
    while left:
        trials = [channels([other for other in left if other != one], unit) for one in left]
        costs = [lost(hessian, weight, kept) for kept in trials]
        expected.append(left.pop(int(np.argmin(costs))))
    assert eliminate(hessian, weight, unit)[0].tolist() == expected


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_greedy_is_near_the_best_subset(rows, weight, count):
    """By enumeration of all subsets; with independent inputs greedy is the best."""
    for hessian, most in ((with_ridge(moments([gram(rows)])[0], RIDGE), 1.5), (np.diag(np.arange(1.0, 7)), 1.0)):
        kept = np.sort(eliminate(hessian, weight, 1)[0][6 - count :])
        least = min(lost(hessian, weight, subset) for subset in combinations(range(6), count))
        assert lost(hessian, weight, kept) <= least * most + 1e-12


@pytest.mark.parametrize(("unit", "counts"), [(1, [5, 2, 1]), (2, [2]), (3, [1, 2])])
def test_what_is_left_on_the_way_is_the_refit(rows, weight, unit, counts):
    """The matrix makes up for every unit that goes; solved from scratch it is the same."""
    hessian = with_ridge(moments([gram(rows)])[0], RIDGE)
    order, fitted = eliminate(hessian, weight, unit, counts)
    assert sorted(fitted) == sorted(counts)
    for count, left in fitted.items():
        kept = channels(np.sort(order[len(order) - count :]), unit)
        np.testing.assert_allclose(left, refit(hessian, weight, kept)[kept], rtol=1e-5)


def test_a_copy_of_another_input_goes_first_and_costs_nothing(rows, weight):
    """Its row of the matrix joins that of the other."""
    doubled = np.concatenate([rows, rows[:, 2:3]], 1)
    weight = np.concatenate([weight, [np.arange(5.0)]])
    hessian = with_ridge(moments([gram(doubled)])[0], 1e-9)
    first = eliminate(hessian, weight, 1)[0][0]
    assert first in (2, 6)
    kept = np.setdiff1d(np.arange(7), first)
    assert lost(hessian, weight, kept) < 1e-6
    np.testing.assert_allclose(refit(hessian, weight, kept)[8 - first], weight[2] + weight[6], atol=1e-5)


def test_many_units_go_a_few_at_a_time():
    """Every unit once, and near as good as one at a time."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 64)) @ rng.standard_normal((64, 64))
    hessian, weight = with_ridge(moments([gram(rows)])[0], RIDGE), rng.standard_normal((64, 7))
    order, fitted = eliminate(hessian, weight, 1, [33])
    assert sorted(order) == list(range(64))
    assert fitted[33].shape == (33, 7)
    chance = np.mean([lost(hessian, weight, np.sort(rng.permutation(64)[:32])) for _ in range(20)])
    assert lost(hessian, weight, np.sort(order[32:])) < 0.5 * chance


def test_inputs_that_never_move_can_go():
    """A covariance of zeros leaves no system singular."""
    hessian, weight = with_ridge(np.zeros((6, 6)), RIDGE), np.ones((6, 5))
    assert sorted(eliminate(hessian, weight, 2)[0]) == [0, 1, 2]
    np.testing.assert_array_equal(refit(hessian, weight, np.array([0, 1])), [[1] * 5] * 2 + [[0] * 5] * 4)


def test_channels_of_units_lie_side_by_side():
    assert channels([2, 0], 3).tolist() == [6, 7, 8, 0, 1, 2]
    assert channels([], 3).tolist() == []
