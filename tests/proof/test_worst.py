"""The rows on which two models differ most come first, and say how."""

from pathlib import Path

import numpy as np
import pytest

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.proof.tasks.table import Kind
from onnxslim_bert.proof.worst import worst_rows

TEXTS = tuple((f"row {i}",) for i in range(5))


def answers(values, kind: Kind = "classes") -> Outputs:
    return Outputs(Path("m.onnx"), "logits", kind, np.array(values, np.float32))


def rows(labels=None) -> Dataset:
    return Dataset("set", "dev", TEXTS, None if labels is None else np.array(labels), None)


BASE = [[2, 0], [1, 0.9], [0, 3], [0.5, 0], [0, 1]]
CANDIDATE = [[1, 0], [0.8, 0.9], [0.5, 0], [0.5, 0], [0, 1.25]]


def test_flipped_rows_come_first_the_most_decided_in_front():
    """Row 2 goes from 3 for one class to 0.5 for the other; row 1 from 0.1 to 0.1. Row 3 is the same, so not there."""
    found = worst_rows(answers(BASE), answers(CANDIDATE), rows([0, 0, 1, 0, 1]), 5)
    assert [(one.row, one.flipped, one.distance) for one in found] == [
        (2, True, 3.0),
        (1, True, pytest.approx(0.2)),
        (0, False, 1.0),
        (4, False, 0.25),
    ]
    assert [(one.base, one.candidate, one.label) for one in found[:2]] == [(1.0, 0.0, 1.0), (0.0, 1.0, 0.0)]
    assert found[0].text == ("row 2",)


def test_no_more_rows_than_asked_for():
    assert [one.row for one in worst_rows(answers(BASE), answers(CANDIDATE), rows(), 2)] == [2, 1]
    assert worst_rows(answers(BASE), answers(CANDIDATE), rows(), 0) == ()


def test_equal_rows_keep_their_order():
    found = worst_rows(answers([[1, 0]] * 5), answers([[1.5, 0]] * 5), rows(), 3)
    assert [one.row for one in found] == [0, 1, 2]


def test_labels_may_be_unknown():
    assert worst_rows(answers(BASE), answers(CANDIDATE), rows(), 1)[0].label is None


def test_an_answer_that_is_not_finite_is_the_worst():
    broken = [list(map(float, row)) for row in CANDIDATE]
    broken[4] = [np.nan, 0.0]
    first = worst_rows(answers(BASE), answers(broken), rows(), 1)[0]
    assert (first.row, first.candidate, first.distance, first.flipped) == (4, -1.0, np.inf, True)


def test_scores_differ_by_what_lies_between():
    base, candidate = (
        answers([[1.0], [2.0], [0.0], [4.0], [5.0]], "score"),
        answers([[1.0], [2.5], [-2], [4], [5]], "score"),
    )
    found = worst_rows(base, candidate, rows([1, 2, 3, 4, 5]), 5)
    assert [(one.row, one.base, one.candidate, one.distance, one.flipped) for one in found] == [
        (2, 0.0, -2.0, 2.0, False),
        (1, 2.0, 2.5, 0.5, False),
    ]


def test_embeddings_differ_by_their_angle():
    """Length does not count; equal ones differ by rounding alone and are not there."""
    base = answers([[1, 0], [0.3, 0.7], [1, 1], [0, 1], [0, 1]], "embedding")
    candidate = answers([[0, 5], [0.6, 1.4], [1, 0], [0, 1], [0, -1]], "embedding")
    found = worst_rows(base, candidate, rows(), 5)
    assert [(one.row, one.base) for one in found] == [(4, 1.0), (0, 1.0), (2, 1.0)]
    assert [one.candidate for one in found] == pytest.approx([-1, 0, np.sqrt(0.5)])
    assert [one.distance for one in found] == pytest.approx([2, 1, 1 - np.sqrt(0.5)])
    assert not any(one.flipped for one in found)


def test_ready_inputs_have_no_text():
    feeds = {"input_ids": np.zeros((5, 3), np.int64)}
    found = worst_rows(answers(BASE), answers(CANDIDATE), Dataset("f", "all", (), None, None, feeds), 1)
    assert found[0].text == ()
