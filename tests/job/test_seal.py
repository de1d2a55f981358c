"""Budgets of what is written: a missed one publishes nothing, and says what was measured."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import assert_refused, contents, run, workspace

from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError
from onnxslim_bert.job.seal import UNTIMED, Gate, verdicts_on
from onnxslim_bert.proof.gates import Budgets
from onnxslim_bert.proof.validate import validate

MISSED = [
    (("--max-drop", "-50"), 3, "max-drop"),
    (("--min-agreement", "100", "--max-drop", "-50"), 3, "max-drop"),
    (("--min-speedup", "1000"), 4, "min-speedup"),
    (("--max-size", "1kB"), 6, "max-size"),
    (("--max-download", "1kB"), 6, "max-download"),
    (("--max-size", "1kB", "--min-speedup", "1000"), 4, "min-speedup"),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return workspace(tmp_path)


def command(name: str, model: Path, output: Path) -> list[object]:
    """`quantize` or `slim`, with evaluation rows."""
    data = ["--data", model.parent / "eval.tsv", "-o", output]
    if name == "slim":
        return ["slim", model, "-p", "canonicalize?,fuse,quantize-dynamic", *data]
    return ["quantize", model, "--mode", "dynamic", *data]


@pytest.mark.parametrize(
    ("name", "budgets", "code", "gate"),
    [("quantize", *case) for case in MISSED] + [("slim", *case) for case in MISSED[2:]],
)
def test_a_missed_budget_writes_nothing(model, name, budgets, code, gate):
    """Neither model nor report; the document is printed, and tells what was missed."""
    before = contents(model.parent)
    outcome = run(*command(name, model, model.parent / "out.onnx"), *budgets, "--json")
    assert outcome.code == code, outcome
    assert contents(model.parent) == before
    document = json.loads(outcome.out)
    assert document["published"] is False
    assert {verdict["gate"]: verdict["outcome"] for verdict in document["verdicts"]}[gate] == "missed"
    assert gate in outcome.err


@pytest.mark.parametrize("name", ["quantize", "slim"])
def test_a_model_that_lies_there_stays(model, name):
    """--force replaces it by what passes, not by nothing."""
    output = model.parent / "out.onnx"
    assert run(*command(name, model, output)).code == 0
    before = contents(model.parent)
    assert run(*command(name, model, output), "--max-size", "1kB", "--force").code == 6
    assert contents(model.parent) == before


@pytest.mark.parametrize("name", ["quantize", "slim"])
def test_budgets_that_are_met_are_said(model, name):
    outcome = run(*command(name, model, model.parent / "out.onnx"), "--max-size", "1MB", "--max-drop", "90")
    assert outcome.code == 0, outcome
    for said in ("finite met", "max-drop met", "max-size met"):
        assert said in outcome.out
    assert (model.parent / "out.onnx").is_file()


def test_the_size_is_that_of_the_file_that_is_written(model):
    """With its record: one byte less is a budget that is missed."""
    output = model.parent / "out.onnx"
    assert run(*command("slim", model, output), "--max-size", "99999").code == 0
    size = output.stat().st_size
    assert run(*command("slim", model, output), "--max-size", f"{size:05}", "--force").code == 0
    assert output.stat().st_size == size
    assert run(*command("slim", model, output), "--max-size", f"{size - 1:05}", "--force").code == 6


def test_the_download_is_that_of_the_file_after_gzip(model):
    """A budget between the file's bytes and those after gzip: one is missed, the other met and said."""
    output = model.parent / "out.onnx"
    assert run(*command("slim", model, output)).code == 0
    size, packed = output.stat().st_size, len(gzip.compress(output.read_bytes(), 6))
    assert packed < 0.9 * size
    between = str((size + packed) // 2)
    assert run(*command("slim", model, output), "--max-size", between, "--force").code == 6
    outcome = run(*command("slim", model, output), "--max-download", between, "--force")
    assert (outcome.code, "max-download met: " in outcome.out) == (0, True)


def test_strict_fails_what_24_rows_cannot_carry(model):
    """All answers agree, and 99 % is more than 24 rows can show."""
    arguments = ("slim", model, "-p", "fuse", "--data", model.parent / "eval.tsv", "--min-agreement", "99")
    assert run(*arguments, "-o", model.parent / "strict.onnx", "--strict").code == 3
    assert not (model.parent / "strict.onnx").exists()
    assert run(*arguments, "-o", model.parent / "lax.onnx").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quantize", "--mode", "dynamic", "--min-agreement", "9"], "the agreement needs evaluation texts"),
        (["slim", "-p", "fuse", "--max-drop", "1"], "a budget for the drop or the agreement needs evaluation texts"),
        (["quantize", "--mode", "dynamic", "--strict"], "--strict does nothing without a budget"),
        (["slim", "--target-speedup", "2", "--min-agreement", "9"], "--min-agreement does nothing with a target"),
    ],
)
def test_budgets_that_nothing_can_judge_are_refused(model, arguments, said):
    """Before anything is made."""
    assert_refused(run(arguments[0], model, *arguments[1:], "-o", model.parent / "o.onnx"), said)


def test_a_budget_for_the_drop_needs_labels():
    rows = load_dataset("reviews", "evaluation", rows=5)
    Gate(Budgets(max_drop=1)).check(rows)
    with pytest.raises(DataError, match="'reviews' has none"):
        Gate(Budgets(max_drop=1)).check(replace(rows, labels=None))
    Gate(Budgets(min_agreement=1)).check(replace(rows, labels=None))
    Gate().check(None)


def test_a_speedup_that_nothing_here_can_show_is_open(model):
    """As for a target that does not run on this machine."""
    rows = load_dataset(str(model.parent / "eval.tsv"), "evaluation")
    seen = validate(model, model, rows, Working(tokenizer=load_tokenizer(model.parent))).comparison
    finite, speed = verdicts_on(seen, Budgets(min_speedup=2), (), ())
    assert (finite.gate, speed.gate, speed.outcome, speed.note) == ("finite", "min-speedup", "inconclusive", UNTIMED)
    wanted = Budgets(min_speedup=2)
    assert Gate(wanted, strict=True).fails([finite, speed])
    assert not Gate(wanted).fails([finite, speed])
    assert not Gate().fails([replace(finite, outcome="missed")])
