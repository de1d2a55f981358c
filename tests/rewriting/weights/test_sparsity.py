"""Which weights go, on matrices small enough to do by hand."""

import numpy as np
import pytest

from onnxslim_bert.rewriting.weights.sparsity import importance, keep_share, keep_two_of_four

WEIGHT = np.array([[1, -5], [-2, 4], [3, -3], [-4, 2], [5, -1]], np.float32)


def test_importance_is_the_magnitude_or_the_magnitude_times_the_input():
    assert (importance(WEIGHT) == np.abs(WEIGHT)).all()
    scores = importance(WEIGHT, np.array([25, 1, 4, 0, 1]))
    np.testing.assert_allclose(scores, [[5, 25], [2, 4], [6, 6], [0, 0], [5, 1]])


@pytest.mark.parametrize(("share", "zeros"), [(0.2, 1), (0.4, 2), (0.5, 2), (0.6, 3), (0.05, 0)])
def test_the_lowest_scores_of_each_output_go(share, zeros):
    kept = keep_share(np.abs(WEIGHT), share)
    assert kept[:, 0].tolist() == [i >= zeros for i in range(5)]
    assert kept[:, 1].tolist() == [i < 5 - zeros for i in range(5)]


def test_equal_scores_go_in_order():
    """So that the same model gives the same bytes."""
    assert keep_share(np.ones((4, 1)), 0.5)[:, 0].tolist() == [False, False, True, True]
    assert keep_two_of_four(np.ones((4, 1)))[:, 0].tolist() == [True, True, False, False]


def test_two_of_every_four_inputs_stay():
    scores = np.array([[4, 3, 2, 1, 1, 9, 8, 2]], np.float32).T
    assert keep_two_of_four(scores)[:, 0].tolist() == [True, True, False, False, False, True, True, False]


@pytest.mark.parametrize("rest", [1, 2, 3])
def test_a_last_group_keeps_two_at_most(rest):
    scores = np.random.default_rng(0).random((4 + rest, 3))
    kept = keep_two_of_four(scores)
    assert kept.shape == scores.shape
    assert (kept[4:].sum(0) == min(rest, 2)).all()
    assert (np.sort(scores[4:], axis=0)[-min(rest, 2) :].sum(0) == (scores[4:] * kept[4:]).sum(0)).all()
