"""Label-free fidelity against values worked out by hand."""

import numpy as np
import pytest

from onnxslim_bert.proof.fidelity import fidelity, mean_pooled, row_cosines, softmax_kl


def test_classes_are_compared_by_argmax_difference_and_kl():
    """One of four rows changes its class; the largest difference is 3."""
    base = np.array([[2.0, 0], [0, 2], [1, 0], [3, 0]])
    candidate = np.array([[2.0, 0], [0, 2], [1, 1.5], [0, 0]])
    close = fidelity("classes", base, candidate)
    assert close.agreement
    assert close.agreement.value == 75
    assert close.mean_difference == pytest.approx(4.5 / 8)
    assert close.max_difference == 3
    assert (close.cosine, close.correlation) == (None, None)


def test_kl_of_two_known_distributions():
    """KL((1/2, 1/2) || (1/4, 3/4)) = ln 2 - ln 3 / 2, whatever is added to all logits."""
    base, candidate = np.array([[7.0, 7.0]]), np.log([[0.25, 0.75]]) - 1000
    assert softmax_kl(base, candidate) == pytest.approx(np.log(2) - np.log(3) / 2)
    assert softmax_kl(base, base) == 0


def test_one_score_has_no_argmax_but_a_correlation():
    """A shift of 2 leaves the correlation perfect."""
    base = np.array([[1.0], [2], [5]])
    close = fidelity("score", base, base + 2)
    assert (close.agreement, close.kl) == (None, None)
    assert (close.correlation, close.shift, close.mean_difference) == pytest.approx((100, 2, 2))


def test_embeddings_are_compared_by_cosine():
    """45 degrees on one row, none on the other."""
    base, candidate = np.array([[1.0, 0], [0, 3]]), np.array([[1.0, 1], [0, 1]])
    close = fidelity("embedding", base, candidate)
    assert close.min_cosine == pytest.approx(np.sqrt(0.5))
    assert close.cosine == pytest.approx((1 + np.sqrt(0.5)) / 2)
    assert close.agreement is None
    assert row_cosines(np.zeros((1, 2)), base[:1]).tolist() == [0]


def test_rows_that_are_not_finite_disagree_and_are_left_out_of_the_distances():
    """Two of four rows are broken."""
    base = np.array([[2.0, 0], [0, 2], [1, 0], [3, 0]])
    candidate = base.copy()
    candidate[0, 0], candidate[1, 1] = np.nan, np.inf
    close = fidelity("classes", base, candidate)
    assert close.agreement
    assert close.agreement.value == 50
    assert (close.rows, close.max_difference) == (2, 0)
    assert fidelity("embedding", base, np.full_like(base, np.nan)).rows == 0


def test_padding_is_no_part_of_the_mean():
    """Only real tokens count."""
    states = np.array([[[1.0, 2], [3, 4], [99, 99]], [[5, 6], [99, 99], [99, 99]]])
    mask = np.array([[True, True, False], [True, False, False]])
    assert mean_pooled(states, mask).tolist() == [[2, 3], [5, 6]]


def test_the_tail_is_told_beside_the_mean():
    """Of 200 rows three are off: the mean hides them, the percentile does not."""
    base = np.tile(np.array([[1.0, 0.0]]), (200, 1))
    candidate = base.copy()
    candidate[:3] = [0.6, 0.8]
    close = fidelity("embedding", base, candidate)
    assert close.cosine > 0.99
    assert (close.tail_cosine, close.min_cosine) == pytest.approx((0.6, 0.6))
    logits = fidelity("classes", base, candidate)
    assert (logits.mean_difference, logits.tail_difference) == pytest.approx((0.009, 0.8))
