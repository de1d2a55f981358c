"""Markdown as a parser of it reads it."""

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from onnxslim_bert.errors import OutputError
from onnxslim_bert.inspection.verify.markdown import _reason, append, escaped, heading, run_summary, table

NASTY = [
    "a|b",
    "\\|",
    "`code`",
    "*not bold*",
    "_x_",
    "<script>alert(1)</script>",
    "[link](http://x)",
    "&amp;",
    "~~s~~",
    "\\",
]


def cells(text: str) -> list[list[str]]:
    """The cells of the first table in `text`, each as a reader sees it; what is markup in a cell has no place there."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            assert {child.type for child in token.children or []} <= {"text", "text_special"}, token.content
            rows[-1].append("".join(child.content for child in token.children or []))
        elif token.type == "table_close":
            break
    return rows


@pytest.mark.parametrize("text", NASTY)
def test_a_cell_is_shown_as_it_is(text):
    assert cells(table(["first", "second"], [[text, "1"], ["2", text]])) == [
        ["first", "second"],
        [text, "1"],
        ["2", text],
    ]


def test_the_reader_of_these_tests_sees_markup():
    """Unescaped, the same texts are not what is shown."""
    wrong = "| a | b |\n| --- | --- |\n| *bold* | x |\n"
    with pytest.raises(AssertionError):
        cells(wrong)
    assert cells("| a | b |\n| --- | --- |\n| 1|2 | x |\n")[1] == ["1", "2"]


def test_a_cell_is_one_line():
    assert table(["a"], [["one\ntwo\r\n  three"]]) == "| a |\n| --- |\n| one two three |\n"
    assert escaped(1.5) == "1.5"


def test_rows_are_as_wide_as_the_header():
    with pytest.raises(ValueError, match="rows of 2 cells"):
        table(["a", "b"], [["1"]])


def test_a_heading_is_one_line_of_text():
    (opening, inline, _) = MarkdownIt("commonmark").parse(heading("model\n# *x*.onnx #"))
    assert (opening.tag, "".join(child.content for child in inline.children)) == ("h3", "model # *x*.onnx #")


def test_append_keeps_what_is_there(tmp_path: Path):
    """The steps of a job share one file, which may be there and empty, or not at all."""
    file = tmp_path / "summary.md"
    append(file, "one\n")
    append(file, "two\n")
    assert file.read_text() == "one\n\ntwo\n\n"
    with pytest.raises(OutputError, match="cannot be written"):
        append(tmp_path / "none" / "summary.md", "x")


def row(name: str, **values: object) -> dict[str, object]:
    """A job of a run as JSON, before it ran."""
    job = {"model": name, "recipe": "int8", "target": "cpu", "status": "done", "message": "", "exit_code": 0}
    return {**job, "verdicts": [], "result": None, "timed": None, **values}


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 1, "high": value + 1}


def test_what_fails_undecided_says_what_could_not_be_decided():
    """As it does with --strict."""
    verdicts = [{"gate": "max-drop", "outcome": "inconclusive", "note": "0.5 points", "where": ""}]
    row = {"message": "", "status": "done", "exit_code": 3, "verdicts": verdicts}
    assert _reason(row) == "max-drop: 0.5 points"
    verdicts.append({"gate": "max-size", "outcome": "missed", "note": "too large", "where": ""})
    assert _reason(row) == "max-size: too large"


def test_a_run_is_a_row_for_each_job_and_the_reasons_of_those_that_fail():
    comparison = {
        "scores": [{"metric": "accuracy", "base": interval(90), "candidate": interval(88.5), "drop": interval(1.5)}],
        "fidelity": {"agreement": interval(97.25)},
    }
    result = {"comparison": comparison, "source_bytes": 14_300_000, "output_bytes": 3_720_000}
    missed = {"gate": "max-drop", "outcome": "missed", "note": "1.5 points, wanted at most 1", "where": ""}
    text = run_summary(
        {
            "rows": [
                row("good", result=result, timed={"latency": {"speedup": interval(3.1)}}),
                row(
                    "worse", result=result, exit_code=3, verdicts=[missed, {**missed, "outcome": "met", "note": "fine"}]
                ),
                row("gone", status="crashed", message="killed by signal 9", exit_code=1),
            ]
        }
    )
    jobs = cells(text)
    assert jobs[1][:3] + jobs[1][4:] == [
        *("good", "int8", "cpu", "90.00 to 88.50", "1.50 (0.50 to 2.50)", "97.25 %", "14.3 MB to 3.72 MB", "3.10x", "0")
    ]
    assert jobs[3][3:] == ["crashed", "-", "-", "-", "-", "-", "1"]
    reasons = cells(text[text.index("| model | recipe | target | why") :])
    assert [line[0] for line in reasons[1:]] == ["worse", "gone"]
    assert [line[3] for line in reasons[1:]] == ["max-drop: 1.5 points, wanted at most 1", "killed by signal 9"]
    assert text.startswith("### 3 jobs, 2 failed\n")
