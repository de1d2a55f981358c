"""Several labels a row, in all the ways in which tables hold them."""

import json
from pathlib import Path

import pytest

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.loading import load_dataset

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
