"""Task metrics against textbook and hand-computed values."""

import numpy as np
import pytest

from onnxslim_bert.proof.metrics import METRICS, accuracy, average_ranks, f1, matthews, pearson, score, spearman

ONCE = np.ones((1, 7))


def test_accuracy_is_the_share_of_right_rows():
    """Five of seven."""
    assert score(accuracy, np.array([0, 1, 1, 2, 0, 2, 2]), np.array([0, 1, 2, 2, 0, 2, 1])) == pytest.approx(500 / 7)


def test_f1_is_of_class_one():
    """tp 3, fp 1, fn 2: precision 3/4, recall 3/5, so 2/3."""
    predictions, labels = np.array([1, 1, 1, 1, 0, 0, 0, 0]), np.array([1, 1, 1, 0, 1, 1, 0, 0])
    assert score(f1, predictions, labels) == pytest.approx(200 / 3)


def test_matthews_of_a_two_by_two_table():
    """tp 6, fn 2, fp 1, tn 3: (18 - 2) / sqrt(7 * 8 * 4 * 5)."""
    labels = np.array([1] * 8 + [0] * 4)
    predictions = np.array([1] * 6 + [0] * 2 + [1] + [0] * 3)
    assert score(matthews, predictions, labels) == pytest.approx(1600 / np.sqrt(7 * 8 * 4 * 5))


def test_matthews_of_three_classes_is_the_correlation_of_the_indicators():
    """Gorodkin's R_K equals cov(X, Y) / sqrt(cov(X, X) cov(Y, Y)) summed over the indicator columns."""
    labels, predictions = np.array([0, 1, 2, 2, 1, 0, 2]), np.array([0, 2, 2, 2, 1, 0, 1])
    x, y = np.eye(3)[predictions], np.eye(3)[labels]
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    expected = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
    assert score(matthews, predictions, labels) == pytest.approx(100 * expected)


def test_correlations_of_a_textbook_table():
    """IQ and hours of television: Spearman -29/165, as Wikipedia works out; Pearson is numpy's."""
    iq = np.array([86, 97, 99, 100, 101, 103, 106, 110, 112, 113.0])
    hours = np.array([2, 20, 28, 27, 50, 29, 7, 17, 6, 12.0])
    assert score(spearman, iq, hours) == pytest.approx(-2900 / 165)
    assert score(pearson, iq, hours) == pytest.approx(100 * np.corrcoef(iq, hours)[0, 1])


def test_ties_share_their_average_rank():
    """3 and 3 hold ranks 2 and 3."""
    assert average_ranks(np.array([5.0, 3, 1, 3, 9, 7, 8]), ONCE).tolist() == [[4, 2.5, 1, 2.5, 7, 5, 6]]


def test_spearman_with_ties_is_pearson_of_the_ranks():
    """Not the formula of squared differences, which ties break."""
    x, y = np.array([1.0, 2, 2, 3, 5]), np.array([2.0, 1, 3, 3, 3])
    expected = np.corrcoef([1, 2.5, 2.5, 4, 5], [2, 1, 4, 4, 4])[0, 1]
    assert score(spearman, x, y) == pytest.approx(100 * expected)


# Metrics that are made of counts of each row, and how many a row has.
COUNTED = {
    "entity-f1": (3,),
    "micro-f1": (3, 3),
    "macro-f1": (3, 3),
    "token-accuracy": (2,),
    "top-1": (2,),
    "top-5": (2,),
    "pseudo-perplexity": (2,),
}


@pytest.mark.parametrize("name", METRICS)
def test_counts_equal_repeated_rows(name):
    """A resample scored by its counts is that resample written out."""
    rng = np.random.default_rng(3)
    classes = name in ("accuracy", "f1", "matthews")
    predictions, labels = rng.integers(3 if classes else 5, size=(2, 41))
    if not classes:
        predictions = predictions + rng.normal(size=41).round(1)
    if name in COUNTED:
        predictions = rng.integers(1, 5, size=(41, *COUNTED[name])).astype(float)
        predictions[..., 0] *= -1 if name == "pseudo-perplexity" else 1
    counts = rng.multinomial(41, np.full(41, 1 / 41), size=5).astype(float)
    expected = [
        score(METRICS[name], np.repeat(predictions, row.astype(int), axis=0), np.repeat(labels, row.astype(int)))
        for row in counts
    ]
    np.testing.assert_allclose(METRICS[name](predictions, labels, counts), expected, atol=1e-9)


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman", "pearson-spearman"])
def test_a_constant_prediction_correlates_with_nothing(name):
    """The undefined value is 0, whatever the constant's rounding."""
    assert score(METRICS[name], np.full(7, 0.1), np.arange(7)) == 0


def test_the_mean_squared_error_of_textbook_numbers():
    """(1 + 0 + 4) / 3; no points."""
    assert score(METRICS["mse"], np.array([1.0, 2, 5]), np.array([2.0, 2, 3])) == pytest.approx(5 / 3)


def test_f1_without_any_positive_is_zero():
    """0 / 0 is 0."""
    assert score(f1, np.zeros(5), np.zeros(5)) == 0
