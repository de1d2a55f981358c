"""What a file loses, in points, with labels and without."""

import numpy as np
import pytest
from answering_models import WORDS, classifier, embedder, texts, tokenizer

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.job.search.task_drop import TaskDrop

ROWS = ["w0", "w1", "w2", "w3"]
TABLE = np.zeros((WORDS + 1, 2))
TABLE[1:5] = [[1, 0], [1, 0], [0, 1], [0, 1]]  # the answers to the four rows


def changed(row: int, values) -> np.ndarray:
    """The table with another answer to one row."""
    table = TABLE.copy()
    table[1 + row] = values
    return table


@pytest.mark.parametrize(
    ("labels", "drop"),
    [([0, 0, 1, 1], 25.0), ([0, 0, 1, 0], -25.0), (None, 25.0)],
    ids=["was right", "was wrong", "no labels"],
)
def test_points_of_accuracy_or_rows_that_answer_otherwise(labels, drop, tmp_path):
    """One of four rows changes its class."""
    drop_of = TaskDrop(
        classifier(tmp_path / "a.onnx", TABLE), texts(ROWS, labels), Working(tokenizer=tokenizer(tmp_path))
    )
    assert drop_of(tmp_path / "a.onnx") == 0.0
    assert drop_of(classifier(tmp_path / "b.onnx", changed(3, [2, 1]))) == pytest.approx(drop)


def test_an_embedding_loses_what_its_cosine_lacks(tmp_path):
    """One of four rows is turned by a right angle."""
    drop_of = TaskDrop(embedder(tmp_path / "a.onnx", TABLE), texts(ROWS), Working(tokenizer=tokenizer(tmp_path)))
    assert drop_of(embedder(tmp_path / "b.onnx", changed(0, [0, 1]))) == pytest.approx(25.0)


def test_a_score_loses_what_its_correlation_lacks(tmp_path):
    table = TABLE[:, :1] + np.arange(WORDS + 1)[:, None]
    drop_of = TaskDrop(classifier(tmp_path / "a.onnx", table), texts(ROWS), Working(tokenizer=tokenizer(tmp_path)))
    assert drop_of(classifier(tmp_path / "b.onnx", 3 * table)) == pytest.approx(0.0, abs=1e-6)
    assert drop_of(classifier(tmp_path / "c.onnx", -table)) == pytest.approx(200.0)


def test_what_is_not_finite_loses_everything(tmp_path):
    drop_of = TaskDrop(classifier(tmp_path / "a.onnx", TABLE), texts(ROWS), Working(tokenizer=tokenizer(tmp_path)))
    assert drop_of(classifier(tmp_path / "b.onnx", changed(2, [np.nan, 0]))) == 100.0


@pytest.mark.parametrize(("labels", "changed_rows"), [([0, 0, 1, 1], [(2, 0, 0), (2, 1, 0)]), (None, [])])
def test_what_is_lost_of_each_label(labels, changed_rows, tmp_path):
    """Where the rows have labels."""
    drop_of = TaskDrop(
        classifier(tmp_path / "a.onnx", TABLE), texts(ROWS, labels), Working(tokenizer=tokenizer(tmp_path))
    )
    found = drop_of.losses(classifier(tmp_path / "b.onnx", changed(3, [2, 1])))
    assert [(one.rows, one.lost, one.won) for one in found] == changed_rows
