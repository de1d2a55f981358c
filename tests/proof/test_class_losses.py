"""What a candidate loses of the rows of each label, by hand."""

from pathlib import Path

import numpy as np
import pytest

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.proof.class_losses import ClassLoss, class_losses, loss_lines
from onnxslim_bert.proof.outputs import Outputs

LABELS = np.array([0, 0, 0, 2, 2])
BEFORE = [[3, 0, 1], [2, 1, 0], [0, 1, 0], [0, 1, 4], [5, 0, 1]]  # right, right, wrong, right, wrong
AFTER = [[1, 0, 0], [0, 4, 0], [2, 0, 0], [0, 9, 1], [0, 0, 1]]  # right, wrong, right, wrong, right


def outputs(values, kind="classes", **more) -> Outputs:
    return Outputs(Path("m.onnx"), "logits", kind, np.array(values, np.float32), **more)


def rows(labels=LABELS, **more) -> Dataset:
    return Dataset("d", "train", tuple((text,) for text in "abcde"), labels, "accuracy", **more)


def test_rows_that_turned_wrong_or_right_and_the_mean_lead_of_each_label():
    """Label 1 has no rows and no line."""
    assert class_losses(outputs(BEFORE), outputs(AFTER), rows()) == (
        ClassLoss("0", 3, 1, 1, pytest.approx((2 + 1 - 1) / 3), pytest.approx((1 - 4 + 2) / 3)),
        ClassLoss("2", 2, 1, 1, pytest.approx((3 - 4) / 2), pytest.approx((-8 + 1) / 2)),
    )


def test_classes_in_another_order_than_the_labels_and_by_name():
    order, names = (2, 1, 0), ("positive", "neutral", "negative")
    turned = [outputs(np.array(values)[:, ::-1], order=order, names=names) for values in (BEFORE, AFTER)]
    plain, found = class_losses(outputs(BEFORE), outputs(AFTER), rows()), class_losses(*turned, rows())
    assert [one.label for one in found] == ["negative", "positive"]
    assert [(one.lost, one.won, one.margin) for one in found] == [(one.lost, one.won, one.margin) for one in plain]
    assert [one.label for one in class_losses(outputs(BEFORE), outputs(AFTER), rows(names=("no", "so", "yes")))] == [
        "no",
        "yes",
    ]


def test_what_is_not_finite_is_lost_and_leads_by_nothing():
    broken = [[np.nan, 0, 0], *AFTER[1:]]
    first = class_losses(outputs(BEFORE), outputs(broken), rows())[0]
    assert (first.lost, first.margin) == (2, pytest.approx((-4 + 2) / 2))
    gone = class_losses(outputs(BEFORE), outputs(np.full((5, 3), np.nan)), rows())
    assert [(one.lost, one.won, one.margin) for one in gone] == [(2, 0, 0.0), (1, 0, 0.0)]


@pytest.mark.parametrize(
    ("kind", "labels"),
    [("classes", None), ("score", np.linspace(0, 1, 5, dtype=np.float32)), ("embedding", None)],
)
def test_rows_without_classes_lose_none(kind, labels):
    assert class_losses(outputs(BEFORE, kind), outputs(AFTER, kind), rows(labels)) == ()
    assert [*loss_lines((), "d")] == []


def test_a_line_for_each_label():
    said = [*loss_lines(class_losses(outputs(BEFORE), outputs(AFTER), rows()), "d train, 5 rows")]
    assert said == [
        "lost and gained on d train, 5 rows; margin: of the label's class over the best other one, mean",
        "label  rows  turned wrong  turned right  margin before  now",
        "0      3     1             1             0.67           -0.33",
        "2      2     1             1             -0.50          -3.50",
    ]
