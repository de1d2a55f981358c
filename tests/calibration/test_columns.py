"""Texts and labels are found by the names of the columns, and checked value by value."""

from typing import Any

import numpy as np
import pytest

from onnxslim_bert.calibration.columns import Classes, Scores, find_labels, find_texts
from onnxslim_bert.errors import DataError


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["idx", "sentence", "label"], ("sentence",)),
        (["sentence1", "sentence2", "score"], ("sentence1", "sentence2")),
        (["label", "sentence", "question"], ("question", "sentence")),
        (["hypothesis", "premise"], ("premise", "hypothesis")),
        (["question2", "question1", "is_duplicate"], ("question1", "question2")),
        (["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"], ("#1 String", "#2 String")),
        (["Text"], ("Text",)),
        (["pair_ID", "sentence_A", "sentence_B", "relatedness_score"], ("sentence_A", "sentence_B")),
        (["passage", "question", "answer"], ("question", "passage")),
        (["positive", "anchor"], ("anchor", "positive")),
    ],
)
def test_known_names_are_recognised(names: list[str], chosen: tuple[str, ...]) -> None:
    """Pairs come before single texts, and premise, question and first sentence come first in a row."""
    columns = {name: [f"{name}!"] for name in names}
    assert find_texts(columns, None, "a.tsv") == (tuple(f"{name}!" for name in chosen),)


@pytest.mark.parametrize("missing", [None, "", "  "])
@pytest.mark.parametrize("others", [[1, 0], ["1", "0"], ["good", "bad"], [0.5, 1.0]])
@pytest.mark.parametrize("row", [0, 2])
def test_a_row_without_a_label_is_named(missing: Any, others: list[Any], row: int) -> None:
    values = [*others[:row], missing, *others[row:]]
    with pytest.raises(DataError, match=rf"a.tsv, row {row + 1}: no label: needed one in every row, or in none"):
        find_labels({"label": values}, None, None, "a.tsv")


@pytest.mark.parametrize("values", [[None, None], ["", " "], [-1, "-1"]])
def test_labels_that_nobody_gave_are_none(values: list[Any]) -> None:
    assert find_labels({"label": values}, None, None, "a.tsv") is None


@pytest.mark.parametrize("label", [10**400, "9" * 400, 1e300, 1 << 40, "LABEL_" + "9" * 400])
def test_a_label_of_absurd_size_is_refused(label: Any) -> None:
    with pytest.raises(DataError, match=r"a.tsv, row 2: label .*: needed a class number from 0 up") as caught:
        find_labels({"label": [0, label]}, None, Classes(), "a.tsv")
    assert len(str(caught.value)) < 200


def test_named_columns_win() -> None:
    columns = {"sentence": ["s"], "title": ["t"], "body": ["b"]}
    assert find_texts(columns, ["title"], "a.tsv") == (("t",),)
    assert find_texts(columns, ["title", "body"], "a.tsv") == (("t", "b"),)


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"id": ["1"]}, None, r"a.tsv: columns \['id'\]: cannot tell the texts"),
        ({"text": ["1"]}, ["title"], "a.tsv: no column 'title': its columns are text"),
        ({"a": ["1"], "b": ["1"], "c": ["1"]}, ["a", "b", "c"], "name one or two with --text-column"),
        ({"text": ["good", None]}, None, "a.tsv, row 2: 'text' is None: needed a string"),
        ({"text": ["half \ud83d"]}, None, "row 1: 'text' holds half of a surrogate pair"),
    ],
)
def test_texts_that_cannot_be_told_are_refused(
    columns: dict[str, list[Any]], names: list[str] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        find_texts(columns, names, "a.tsv")


@pytest.mark.parametrize(
    ("values", "expected", "kind"),
    [
        (["1", "0", "7"], [1, 0, 7], "int64"),
        ([1, 0], [1, 0], "int64"),
        (["5.000", "3"], [5.0, 3.0], "float32"),
        ([0.5, -2], [0.5, -2.0], "float32"),
        (["0,5", " -2"], [0.5, -2.0], "float32"),
    ],
)
def test_whole_numbers_are_classes_and_others_scores(values: list[Any], expected: list[float], kind: str) -> None:
    labels = find_labels({"label": values}, None, None, "a.tsv")
    assert labels is not None
    assert labels.dtype == kind
    np.testing.assert_array_equal(labels, expected)


def test_names_of_classes_are_numbers_too() -> None:
    """GLUE's own files say entailment where the hub's say 0."""
    kind = Classes(("entailment", "not_entailment"))
    labels = find_labels({"label": ["not_entailment", "0", "1"]}, None, kind, "a.tsv")
    np.testing.assert_array_equal(labels, [1, 0, 1])


def test_labels_that_are_held_back_are_none() -> None:
    """All of them -1; one -1 among others is a fault."""
    assert find_labels({"label": [-1, -1]}, None, Classes(("no", "yes")), "a.tsv") is None
    assert find_labels({"text": ["a"]}, None, None, "a.tsv") is None
    with pytest.raises(DataError, match="row 2: label -1 is out of range"):
        find_labels({"label": [1, -1]}, None, None, "a.tsv")


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (["0", "2"], Classes(("no", "yes")), "a.tsv, row 2: label 2 is out of range: needed a class from 0 to 1"),
        (["0", "0.5"], Classes(("no", "yes")), "row 2: label 0.5 is out of range"),
        (["0", "good"], None, "row 2: label 'good' is not a number: needed a finite score"),
        (["0", ""], Classes(), "row 2: no label: needed one in every row"),
        ([0, None], None, "row 2: no label: needed one in every row"),
        (["1.5", "nan"], None, "row 2: label nan is out of range: needed a finite score"),
        (["1.5", "inf"], None, "row 2: label inf is out of range"),
        (["1.5", "5.1"], Scores(0, 5), "row 2: label 5.1 is out of range: needed a score from 0 to 5"),
    ],
)
def test_labels_out_of_place_are_refused(values: list[Any], kind: Classes | Scores | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_labels({"label": values}, None, kind, "a.tsv")


def test_a_named_label_column_must_be_there() -> None:
    with pytest.raises(DataError, match="no column 'stars': its columns are text"):
        find_labels({"text": ["a"]}, "stars", None, "a.tsv")
