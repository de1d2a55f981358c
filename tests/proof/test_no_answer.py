"""Tests of the threshold for no answer, and of spans over the windows of a passage, by values worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.tokenizer import PlacedRow
from onnxslim_bert.proof.collect import Collected
from onnxslim_bert.proof.reading import Reading
from onnxslim_bert.proof.tasks.answers import Answer, exact_match, said, word_f1
from onnxslim_bert.proof.tasks.no_answer import best_threshold

INF = np.inf


@pytest.mark.parametrize(
    ("answered", "silent", "leads", "value", "scores"),
    [
        ([1, 0, 1], [0, 1, 0], [2, 1, -1], -2, [1, 1, 0]),  # of two that are as good the one with fewer answers
        ([1, 0, 1], [0, 1, 0], [2, -1, 1], -1, [1, 1, 1]),  # parts them
        ([1, 1, 0], [0, 0, 1], [-3, -4, -5], 4, [1, 1, 1]),  # 0, that is fixed, would silence all
        ([0, 0], [1, 1], [5, 6], -INF, [1, 1]),  # never to answer is best
        ([1, 1], [0, 0], [5, 6], -5, [1, 1]),  # always to answer is best
        ([1, 0, 0], [0, 1, 1], [3, 3, -2], -INF, [0, 1, 1]),  # equal leads cannot be parted: 0 + 2, not 1 + 1
        ([0.5, 0.25, 0], [0, 0, 1], [1, 0, -1], 0, [0.5, 0.25, 1]),  # F1 is a share
        ([0, 1], [0, 0], [-INF, 2], -2, [0, 1]),  # without a span there is nothing to say
    ],
)
def test_the_best_threshold(answered, silent, leads, value, scores):
    """The least threshold with the highest mean; a question is answered where no answer leads by that much or less."""
    found = best_threshold(*(np.array(each, np.float64) for each in (answered, silent, leads)))
    assert found.value == value
    assert str(found) == (f"{value:.4g}" if value > -INF else "anything (never to answer is best)")
    assert found.scores.tolist() == scores


def test_no_threshold_does_better():
    """None of all thresholds between leads, tried one by one, has a higher mean."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        answered, silent = rng.integers(0, 3, (2, 9)) / 2
        leads = rng.integers(-3, 4, 9).astype(np.float64)
        best = best_threshold(answered, silent, leads)
        tried = [np.where(-leads <= value, answered, silent).mean() for value in np.arange(-4.5, 4)]
        assert best.scores.mean() == max(tried)


def test_silence_is_no_less_than_the_span():
    """At a lead of 0 the span is said, as the official script does; where every question has an answer, always."""
    answers = (Answer("a", 0.0), Answer("b", -0.5), Answer("", -INF))
    assert said(answers, silent=True) == ("a", "", "")
    assert said(answers, silent=False) == ("a", "b", "")


def test_the_span_is_the_likeliest_of_all_windows():
    """Its window is that of the highest score, 9; no answer counts with the least that a window gives it, 1."""
    text = "red green blue"
    places = (None, (0, 3), (4, 9), (10, 14))
    row = PlacedRow([0, 1, 2, 3], [0, 0, 0, 0], places)
    windows = Dataset("w", "evaluation", (("?", text), ("?", text)), None, None, form="windows", encoded=(row, row))
    starts = np.array([[0.5, 4, 0, 0], [5, 0, 0, 5]], np.float32)
    ends = np.array([[0.5, 0, 1, 0], [5, 0, 0, 4]], np.float32)  # 4 + 1 over 1, and 5 + 4 over 10
    feeds = {"ids": np.zeros((2, 4), np.int64)}
    batch = Batch(feeds, np.ones((2, 4), bool), np.arange(2))
    found = Collected(Path("m"), Reading(("start", "end"), "spans", "a test"), 2)
    found.add(batch, {"start": starts, "end": ends}, windows, np.array([0, 0]))
    asked = Dataset("q", "evaluation", (("?", text),), None, None, form="passages")
    assert found.answers(windows, asked) == (Answer("blue", 8.0),)


def test_answers_of_which_nothing_is_left_count_as_the_script_for_2_0_has_it():
    """They are dropped where there is another; alone, they are no answer."""
    right = [("the", "Bob"), ("The.", "a"), (), ("Bob",), ("the",)]
    found = ["", "", "the", "a", "Bob"]
    assert exact_match(found, right).tolist() == [0, 1, 1, 0, 0]
    assert word_f1(found, right).tolist() == [0, 1, 1, 0, 0]
