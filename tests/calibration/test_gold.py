"""Several labels a row, in all the ways in which tables hold them."""

import json
from pathlib import Path

import pytest

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.errors import DataError

HELD = (("toxic", "rude"), ("rude",), (), ("toxic", "rude", "long"), ("long",))
BY_NUMBER = tuple(tuple(str(("toxic", "rude", "long").index(name)) for name in row) for row in HELD)
FLAGS = [[int(name in row) for name in ("toxic", "rude", "long")] for row in HELD]


def read(path: Path, labels: list[str], head: str = "labels") -> Dataset:
    path.write_text("\n".join([f"text\t{head}", *(f"row {row}\t{cell}" for row, cell in enumerate(labels))]) + "\n")
    return load_dataset(str(path), "evaluation")


@pytest.mark.parametrize("write", ["|".join, "; ".join, ", ".join, json.dumps, lambda row: str(list(row))])
def test_cells_hold_lists(tmp_path: Path, write) -> None:
    """Joined by a mark, or as JSON or Python write them; an empty cell is the empty set."""
    seen = read(tmp_path / "rows.tsv", [write(row) for row in HELD])
    assert (seen.gold, seen.task) == (HELD, "multi-label")


@pytest.mark.parametrize("kind", [int, float, bool])
def test_a_list_of_0_and_1_has_one_for_each_class(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"row {number}", "labels": list(map(kind, row))} for number, row in enumerate(FLAGS)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert load_dataset(str(path), "evaluation").gold == BY_NUMBER


def test_lists_of_0_and_1_of_several_lengths_name_classes(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"{row}", "labels": row}) for row in ([0, 1], [1], [])))
    assert load_dataset(str(path), "evaluation").gold == (("0", "1"), ("1",), ())


def test_columns_of_0_and_1_are_found(tmp_path: Path) -> None:
    """And leave open what the model is, which --label-column says."""
    path = tmp_path / "rows.tsv"
    cells = ["\t".join(map(str, row)) for row in FLAGS]
    seen = read(path, cells, "toxic\trude\tlong")
    assert (seen.gold, seen.task, seen.names) == (HELD, "", ("long", "rude", "toxic"))
    named = load_dataset(str(path), "evaluation", label_column="toxic,rude")
    assert (named.gold, named.task) == (tuple(tuple(x for x in row if x != "long") for row in HELD), "multi-label")


@pytest.mark.parametrize(
    "labels", [["a|b", "c|d"], ["New York, NY", "Rome, IT"], ["3,5", "4,5"], ["[x", "y"], ["[", "["]]
)
def test_names_with_a_mark_stay_names(tmp_path: Path, labels: list[str]) -> None:
    """Where there are no combinations of them, or where they are numbers."""
    seen = read(tmp_path / "rows.tsv", labels)
    assert seen.gold is None
    assert seen.labels is not None


@pytest.mark.parametrize(
    ("head", "labels", "numbers"),
    [
        ("score", ["1,3", "1", "2,3", "3", "1,2"], [1.3, 1, 2.3, 3, 1.2]),
        ("label", ["1,3", "1", "2,3", "3", "3,2"], [1.3, 1, 2.3, 3, 3.2]),
        ("label", ["1,3", "1", "2,3", "3", "1,0"], [1.3, 1, 2.3, 3, 1]),
        ("labels", ["1,3", "1", "2,3", "3", "1,2"], None),
        ("labels", ["1,3", "1", "2,3", "3", "1,2,3"], None),
        ("label", ["1,3", "1", "2,3", "3", "1,2,3"], None),
    ],
)
def test_a_comma_marks_decimals_or_parts_labels(tmp_path: Path, head: str, labels: list[str], numbers) -> None:
    """Labels that hold together are written in order; what may be both is told by the column's name."""
    seen = read(tmp_path / "rows.tsv", labels, head)
    if numbers is None:
        assert seen.gold == tuple(tuple(cell.split(",")) for cell in labels)
    else:
        assert seen.labels is not None
        assert seen.labels.tolist() == pytest.approx(numbers)


def test_what_may_be_a_number_and_two_labels_is_refused(tmp_path: Path) -> None:
    """Where it judges; to calibrate needs no labels."""
    with pytest.raises(DataError, match=r"'label' holds '1,3', which may be one number or two labels: needed"):
        read(tmp_path / "rows.tsv", ["1,3", "1", "2,3", "3", "1,2"], "label")
    assert load_dataset(str(tmp_path / "rows.tsv"), "calibration").labels is None


WRITTEN = "{'text': ['Bob', ' '], 'answer_start': [0, 3]}"
ANSWERED = {
    "csv as Python": ("csv", f'question,context,answers\nwho,Bob did,"{WRITTEN}"\nwhat,it did,\n'),
    "csv": ("csv", "question,context,answer\nwho,Bob did,Bob\nwhat,it did,\n"),
    "objects": ("jsonl", [[{"text": "Bob", "answer_start": 0}], []]),
    "one object": ("jsonl", [{"text": "Bob"}, {"text": []}]),
    "nulls": ("jsonl", ["Bob", None]),
}


@pytest.mark.parametrize("form", ANSWERED)
def test_answers_in_all_forms(tmp_path: Path, form: str) -> None:
    """An empty one is no answer."""
    suffix, given = ANSWERED[form]
    asked = [("who", "Bob did"), ("what", "it did")]
    if not isinstance(given, str):
        rows = [{"question": q, "context": c, "answers": a} for (q, c), a in zip(asked, given, strict=True)]
        given = "\n".join(map(json.dumps, rows))
    (tmp_path / f"rows.{suffix}").write_text(given)
    seen = load_dataset(str(tmp_path / f"rows.{suffix}"), "evaluation")
    assert (seen.task, seen.texts, seen.gold) == ("answers", tuple(asked), (("Bob",), ()))


def test_words_and_tags_in_cells(tmp_path: Path) -> None:
    """As JSON or Python write lists; what numpy prints would be read as one word, and is refused."""
    path = tmp_path / "rows.tsv"
    path.write_text("tokens\tner_tags\n['it''s', 'a']\t[1, 0]\n".replace("''", "\\'"))
    seen = load_dataset(str(path), "evaluation")
    assert (seen.texts, seen.gold) == ((("it's", "a"),), (("1", "0"),))
    path.write_text("tokens\tner_tags\n['it' 'a']\t['B-X' 'O']\n")
    with pytest.raises(DataError, match="lists as numpy prints them, without commas: needed lists as JSON"):
        load_dataset(str(path), "evaluation")
