"""What another CPU may change of an answer is allowed, and no more."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.inspection.verify.claims import contradictions
from onnxslim_bert.job.measured import Answers
from onnxslim_bert.proof.comparison import compare
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.proof.tasks.table import Kind

# Ten rows of two logits; the model is off by 0.1 in one of them, 0.05 on average. All rows are far from a tie.
BASE = np.array([[3.0, 0.0]] * 5 + [[0.0, 3.0]] * 5, np.float32)
FAR = BASE + np.array([0.1, 0.0], np.float32)
LABELS = np.array([0] * 5 + [1] * 4 + [0])


def close() -> np.ndarray:
    """FAR, with one row in which the logits are nearly equal."""
    values = FAR.copy()
    values[0] = [1.55, 1.45]
    return values


def found(values: np.ndarray, kind: Kind = "classes", source: np.ndarray = BASE, **claims: Any) -> list[str]:
    """What contradicts `claims` about a model that answers `values`; all else is claimed as it is."""
    labels = LABELS if kind == "classes" else np.arange(10, dtype=np.float32)
    dataset = Dataset("rows", "dev", (("x",),) * 10, labels, "accuracy" if kind == "classes" else "pearson-spearman")
    first, second = (Outputs(Path("m"), "logits", kind, v) for v in (source, values))
    seen = compare(first, second, dataset)
    return list(contradictions(replace(Answers.of(seen, "cpu"), **claims), seen, first, second, labels))


def test_what_is_as_claimed_is_not_contradicted():
    assert found(FAR) == []
    assert found(close()) == []


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"agreement": 90.0}, "agreement 90 recorded, 100 found"),
        ({"agreement": None}, "agreement missing recorded, 100 found"),
        ({"base": 100.0}, "accuracy of the base 100 recorded, 90 found"),
        ({"candidate": 80.0}, "accuracy of the model 80 recorded, 90 found"),
        ({"mean_difference": 0.06}, "mean |difference| 0.06 recorded"),
        ({"rows": 11}, "rows 11 recorded, 10 found"),
        ({"metric": "f1"}, "metric 'f1' recorded, 'accuracy' found"),
    ],
)
def test_where_no_row_is_close_one_row_is_too_much(claims, said):
    """Ten rows: 10 points are one of them."""
    (one,) = found(FAR, **claims)
    assert one.startswith(said)


def test_a_row_near_a_tie_may_fall_on_either_side():
    """One row of ten: 10 points of accuracy downwards and of agreement, and not 20."""
    assert found(close(), candidate=80.0) == []
    assert found(close(), agreement=90.0) == []
    assert found(close(), candidate=70.0)
    assert found(close(), candidate=100.0)  # that row is right already
    assert found(close(), agreement=80.0)
    assert found(close(), base=80.0)  # the base's rows are not close


@pytest.mark.parametrize(("share", "ok"), [(1.05, True), (0.95, True), (1.2, False), (0.8, False)])
def test_the_mean_difference_may_move_by_a_tenth(share, ok):
    assert (found(FAR, mean_difference=0.05 * share) == []) is ok


def test_two_equal_models_may_differ_by_what_floats_do():
    """1e-5 of the largest logit, and no more."""
    assert found(BASE, mean_difference=2e-5) == []
    assert found(BASE, mean_difference=1e-4)


@pytest.mark.parametrize(("shift", "ok"), [(0.05, True), (-0.05, True), (3.0, False)])
def test_a_correlation_may_turn_a_little(shift, ok):
    """One score: there are no rows to fall on another side."""
    base = np.arange(10, dtype=np.float32)[:, None]
    values = base + np.where(np.arange(10) % 2, 0.2, -0.2).astype(np.float32)[:, None]
    assert found(values, "score", base) == []
    labels = np.arange(10, dtype=np.float32)
    score = 100 * np.corrcoef(values[:, 0], labels)[0, 1]
    assert (found(values, "score", base, candidate=float(score) + shift) == []) is ok
