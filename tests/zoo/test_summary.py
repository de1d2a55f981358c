"""The summary in the terminal: the reviewed text at two widths, and texts that no terminal obeys."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from sample import sample_run

from onnxslim_bert.proof.gates import Budgets, Verdict
from onnxslim_bert.zoo.page.trades import headline, outcome, shortfalls, trades
from onnxslim_bert.zoo.records import Run
from onnxslim_bert.zoo.summary import summary

GOLDEN = Path(__file__).parent / "golden"


def printed(run: Run, width: int) -> str:
    """What a console of this width shows."""
    screen = Console(file=io.StringIO(), width=width, highlight=False)
    screen.print(summary(run, width))
    return "".join(f"{line.rstrip()}\n" for line in screen.file.getvalue().splitlines())


@pytest.mark.parametrize("width", [60, 120])
def test_the_text_is_the_reviewed_one(width, request):
    """`pytest --regen` writes it anew."""
    path, text = GOLDEN / f"summary-{width}.txt", printed(sample_run(), width)
    if request.config.getoption("--regen"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [60, 120])
def test_every_job_its_reason_and_every_missed_budget_is_in_it(width):
    run = sample_run()
    text = " ".join(printed(run, width).split())
    for row in run.rows:
        assert row.recipe in text
    for row, reason in shortfalls(run):
        assert f"{row.model} {row.recipe} {row.target}: {reason}" in text


def test_a_name_is_neither_obeyed_by_the_terminal_nor_read_as_markup():
    """Escape sequences, carriage returns, and what rich would take for a style."""
    run = sample_run()
    source, row = replace(run.sources[0], name="[red]a\x1b[2Jb\r"), replace(run.rows[0], model="[red]a\x1b[2Jb\r")
    text = printed(replace(run, sources=(source,), rows=(row,)), 120)
    assert r"[red]a\x1b[2Jb\r" in text
    assert "\x1b" not in text


def test_it_is_plain_ascii_where_names_are():
    """A terminal of another encoding shows it."""
    run = sample_run()
    printed(run, 120).encode("ascii")


def test_a_model_without_any_result_has_its_table():
    run = sample_run()
    rows = tuple(replace(row, status="waiting", result=None, timed=None, verdicts=()) for row in run.rows[:6])
    text = printed(replace(run, sources=run.sources[:1], rows=rows), 80)
    assert text.startswith("0 of 6 jobs on 1 model done; no budget was held.\nWithout a result: 6 waiting.\n")
    assert "quality" in text


# the words behind it


@pytest.mark.parametrize(
    ("change", "words", "reasons"),
    [
        ({}, "done", []),
        ({"exit_code": 2, "message": "max-drop needs labels"}, "budget missed", ["max-drop needs labels"]),
        (
            {"exit_code": 3, "verdicts": (Verdict("max-drop", "inconclusive", "0.9 of 1"),)},
            "budget missed",
            ["max-drop inconclusive: 0.9 of 1"],
        ),
        ({"verdicts": (Verdict("max-drop", "inconclusive", "0.9 of 1"),)}, "done", []),
        (
            {"exit_code": 6, "verdicts": (Verdict("max-size", "missed", "9 MB"),)},
            "budget missed",
            ["max-size missed: 9 MB"],
        ),
        ({"status": "timeout", "result": None, "message": ""}, "out of time", ["out of time"]),
    ],
)
def test_a_job_fails_the_run_for_a_reason_that_is_said(change, words, reasons):
    run = sample_run()
    row = replace(run.rows[0], **change)
    alone = replace(run, rows=(row,))
    assert outcome(row) == words
    assert [reason for _, reason in shortfalls(alone)] == reasons
    [chosen, *_] = trades(alone)
    assert (chosen.fastest is None) is (words != "done")


def test_a_check_that_always_runs_is_no_budget():
    run = sample_run()
    given = {"budgets": Budgets(), "verdicts": (Verdict("finite", "met", ""),)}
    rows = tuple(replace(row, **given) for row in run.rows[:6])
    assert headline(replace(run, rows=rows)).endswith("no budgets were set.")
    broken = replace(rows[0], verdicts=(Verdict("finite", "missed", "3 rows"),))
    assert headline(replace(run, rows=(broken,))).endswith("1 budget missed.")
