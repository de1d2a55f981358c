"""Rows of the family trial: kept as they are found, and the default beside ranges found at run time."""

import json

from family_rows import Row, Rows, beside


def found(model: str, verb: str, mean: float, least: float) -> Row:
    return Row(model, verb, "written", least, mean, 0.1)


def test_rows_that_were_kept_are_not_tried_again(tmp_path):
    """A last line that was cut off is forgotten, and its row tried again."""
    file = tmp_path / "rows.jsonl"
    first = Rows(file)
    first.add(found("bert", "default", 0.9, 0.8))
    with file.open("a") as stream:
        stream.write('{"model": "bert", "verb": "pe')
    second = Rows(file)
    assert second.found == first.found
    assert second.missing("bert", ["default", "peer"]) == ["peer"]
    second.add(found("bert", "peer", 0.9, 0.8))
    assert [json.loads(line)["verb"] for line in file.read_text().splitlines()] == ["default", "peer"]


def test_the_default_is_counted_where_its_mean_or_its_least_row_is_worse():
    rows = [
        found("good", "default", 0.9995, 0.99),
        found("good", "dynamic", 0.9990, 0.98),
        found("good", "peer", 0.99955, 0.97),  # less than the noise above the default
        found("bad", "default", 0.9990, 0.97),
        found("bad", "peer", 0.9995, 0.98),
        found("alone", "default", 0.5, 0.5),
    ]
    _, good, bad, counted = beside(rows)
    assert good.split() == ["good", "0.99950", "0.99900", "0.99955", "0.99000", "0.98000", "0.97000"]
    assert bad.split()[:7] == ["bad", "0.99900", "-", "0.99950", "0.97000", "-", "0.98000"]
    assert bad.endswith("mean worse least worse")
    assert counted.startswith("2 models; the default's mean is worse by more than 0.0001 on 1, its least row on 1")
    assert list(beside([])) == []
