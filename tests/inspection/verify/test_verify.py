"""A model that is what it says passes; one that was damaged, mixed up or described otherwise does not."""

import json
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from command_line import ROOT, assert_refused, contents, run, workspace

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.errors import AccuracyGateError, GateError
from onnxslim_bert.inspection.verify.rows_again import rows_again
from onnxslim_bert.inspection.verify.verification import Check, Verification
from onnxslim_bert.inspection.verify.verify import Now, verify
from onnxslim_bert.job.measured import Asked, Measured, read, record
from onnxslim_bert.recipes.provenance import KEY
from onnxslim_bert.targets.arm64.session import RUNNER
from onnxslim_bert.targets.setup import CPU_PROVIDER, Setup
from onnxslim_bert.targets.table import EMULATED, target_named

BUDGETS = ("--max-drop", "60", "--min-agreement", "40", "--max-size", "1MB")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx, its data and tokenizer, and model.int8.onnx made of it within BUDGETS."""
    folder = tmp_path_factory.mktemp("made")
    source = workspace(folder)
    rows = ("--calib", folder / "calib.tsv", "--data", folder / "eval.tsv", "--label-column", "label")
    outcome = run("quantize", source, *rows, "--rows", "30", "--seed", "3", "--method", "minmax", *BUDGETS)
    assert outcome.code == 0, outcome
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def result(folder: Path) -> Path:
    return folder / "model.int8.onnx"


def write_reviews(path: Path, count: int) -> None:
    """Labelled sentences as a file."""
    rows = load_dataset("reviews", "evaluation", rows=count)
    assert rows.labels is not None
    lines = [f"{text}\t{label}" for (text,), label in zip(rows.texts, rows.labels, strict=True)]
    path.write_text("\n".join(["sentence\tlabel", *lines]) + "\n")


def edited(folder: Path, change: Callable[[Measured], Measured]) -> Path:
    """The model with another record."""
    _, measured = read(result(folder))
    assert measured is not None
    record(result(folder), change(measured))
    return result(folder)


def claiming(**values: Any) -> Callable[[Measured], Measured]:
    """A record of other answers."""
    return lambda measured: replace(measured, answers=replace(measured.answers, **values))


# as it should be


def test_an_untouched_model_passes_and_nothing_is_written(folder):
    """Every hash, both models' answers, and every budget."""
    before = contents(folder)
    outcome = run("verify", result(folder), "--strict")
    assert (outcome.code, outcome.err) == (0, "")
    assert contents(folder) == before
    for said in ("content met", "source met", "calibration rows met", "evaluation rows met", "tokenizer met"):
        assert said in outcome.out
    for said in ("answers met", "finite met", "max-drop met", "min-agreement met", "max-size met"):
        assert said in outcome.out


def test_the_gate_runs_as_it_was_recorded(folder):
    """The same rows give the same numbers, to the last digit."""
    report = json.loads((folder / "model.int8.json").read_text())
    found = verify(result(folder), Now())
    assert found.comparison is not None
    assert found.comparison.scores[0].drop.value == report["comparison"]["scores"][0]["drop"]["value"]
    assert found.comparison.fidelity.mean_difference == report["comparison"]["fidelity"]["mean_difference"]
    assert found.measured.max_length == report["max_length"] == 23
    assert [verdict.gate for verdict in found.verdicts] == ["finite", "max-drop", "min-agreement", "max-size"]


def test_source_data_and_tokenizer_may_lie_elsewhere(folder, tmp_path):
    """Where things are is not what they are."""
    away = tmp_path / "release"
    away.mkdir()
    shutil.move(result(folder), away / "renamed.onnx")
    (folder / "tokenizer.json").rename(away / "tokenizer.json")
    for name in ("calib.tsv", "eval.tsv"):
        (folder / name).rename(folder / f"other-{name}")
    assert_refused(run("verify", away / "renamed.onnx"), "model.onnx", "name it with --base")
    where = ("--base", folder / "model.onnx", "--tokenizer", away / "tokenizer.json")
    rows = ("--data", folder / "other-eval.tsv", "--calib", folder / "other-calib.tsv")
    assert run("verify", away / "renamed.onnx", *where, *rows, "--strict").code == 0


def test_a_recipe_and_its_smaller_tokenizer_are_verified(tmp_path):
    """`slim` records both tokenizers; each model reads with its own."""
    tiny, small = ROOT / "models" / "sst2-tiny", tmp_path / "small.onnx"
    write_reviews(tmp_path / "few.tsv", 12)
    rows = ("--calib", "reviews", "--data", tmp_path / "few.tsv", "--rewrite-tokenizer")
    made = run("slim", tiny / "model.onnx", "-p", "canonicalize?,trim-vocabulary", *rows, "-o", small)
    assert made.code == 0, made
    outcome = run("verify", small, "--base", tiny / "model.onnx")
    assert outcome.code == 0, outcome
    assert "smaller tokenizer met" in outcome.out
    shutil.copy(tiny / "tokenizer.json", tmp_path / "tokenizer.json")
    assert_mismatch(run("verify", small, "--base", tiny / "model.onnx"), "smaller tokenizer missed")


# what was damaged, mixed up or rewritten: exit code 2


def assert_mismatch(outcome: Any, *said: str) -> None:
    """Exit code 2, one line that says why, and the gate not run."""
    assert outcome.code == 2, outcome
    assert outcome.err.count("\n") == 1
    for part in said:
        assert part in outcome.err
    assert "max-drop" not in outcome.out


def test_one_flipped_bit_of_a_weight_is_found(folder):
    data = bytearray(result(folder).read_bytes())
    largest = max(onnx.load(result(folder)).graph.initializer, key=lambda tensor: len(tensor.raw_data)).raw_data
    data[data.index(largest) + len(largest) // 2] ^= 1
    result(folder).write_bytes(data)
    assert_mismatch(run("verify", result(folder)), "content missed: sha256", "recorded")


def test_an_edited_provenance_is_found(folder):
    """It belongs to the content."""
    data = result(folder).read_bytes()
    result(folder).write_bytes(data.replace(b'"recipe": "canonicalize', b'"recipe": "canonicalise', 1))
    assert result(folder).read_bytes() != data
    assert_mismatch(run("verify", result(folder)), "content missed")


def test_a_model_that_another_tool_wrote_again_is_found(folder):
    onnx.save(onnx.load(result(folder)), result(folder))
    assert_mismatch(run("verify", result(folder)), "content missed")


def test_another_source_is_found(folder):
    """The same architecture with one weight changed."""
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)
    assert_mismatch(run("verify", result(folder)), "source missed")


@pytest.mark.parametrize(("name", "said"), [("eval.tsv", "evaluation rows missed"), ("calib.tsv", "calibration rows")])
def test_other_rows_are_found(folder, name, said):
    """One word of one row."""
    lines = (folder / name).read_text().splitlines()
    (folder / name).write_text("\n".join([lines[0], "w1 " + lines[1], *lines[2:]]) + "\n")
    assert_mismatch(run("verify", result(folder)), said)


def test_other_labels_are_found(folder):
    lines = [line.split("\t") for line in (folder / "eval.tsv").read_text().splitlines()]
    lines[1][-1] = str((int(lines[1][-1]) + 1) % 5)
    (folder / "eval.tsv").write_text("\n".join("\t".join(line) for line in lines) + "\n")
    assert_mismatch(run("verify", result(folder)), "evaluation rows missed")


def test_another_tokenizer_is_found(folder):
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"w1":', '"w01":'))
    assert_mismatch(run("verify", result(folder)), "tokenizer missed")


def test_rows_that_are_not_here_fail_unless_that_is_allowed(folder):
    """Then the gate is not run, and it says so; with --strict there is no leave."""
    (folder / "eval.tsv").unlink()
    outcome = run("verify", result(folder))
    assert_mismatch(outcome, "evaluation rows missed: not here: no data set and no file is called 'eval.tsv'")
    outcome = run("verify", result(folder), "--allow-missing-data")
    assert outcome.code == 0, outcome
    assert "evaluation rows inconclusive" in outcome.out
    assert "answers inconclusive: not asked again, for want of the rows" in outcome.out
    assert "max-size met" in outcome.out
    assert "max-drop" not in outcome.out
    assert_refused(run("verify", result(folder), "--allow-missing-data", "--strict"), "give one of them")


def test_a_corpus_is_not_here_while_the_rows_to_leave_out_of_it_are_missing(folder):
    """It would be another one."""
    asked = Asked("", "eval.tsv", "calib.tsv", None, (), "")
    assert isinstance(rows_again(asked, 0, folder, {})["corpus"], Dataset)
    (folder / "eval.tsv").unlink()
    assert "eval.tsv" in str(rows_again(asked, 0, folder, {})["corpus"])


def test_missing_evaluation_rows_do_not_hide_other_calibration_rows(folder):
    (folder / "eval.tsv").unlink()
    assert run("verify", result(folder), "--allow-missing-data").code == 0
    (folder / "calib.tsv").write_text((folder / "calib.tsv").read_text().replace("a", "b"))
    assert_mismatch(run("verify", result(folder), "--allow-missing-data"), "calibration rows missed")


def test_calibration_rows_may_be_missing_while_the_gate_is_run(folder):
    (folder / "calib.tsv").unlink()
    assert run("verify", result(folder)).code == 2
    outcome = run("verify", result(folder), "--allow-missing-data")
    assert outcome.code == 0
    assert "answers met" in outcome.out


def test_a_file_is_looked_for_by_its_name_alone(folder):
    """A record cannot make it read another folder's files."""
    asked = "../copy/eval.tsv"
    edited(folder, lambda measured: replace(measured, asked=replace(measured.asked, evaluation=asked)))
    assert run("verify", result(folder)).code == 0
    edited(folder, lambda measured: replace(measured, asked=replace(measured.asked, evaluation="/etc/hostname")))
    assert_mismatch(run("verify", result(folder)), "no data set and no file is called 'hostname'")


@pytest.mark.parametrize(("base", "said"), [("/dev/null", "no file"), ("model.int8.onnx", "that model itself")])
def test_a_base_that_is_none_is_refused(folder, base, said):
    assert_refused(run("verify", result(folder), "--base", folder / base), "was made from model.onnx", said)


def test_a_model_without_provenance_is_refused(folder):
    said = ("has no provenance", "onnxslim did not write it", "give the file as onnxslim wrote it, or make it again")
    assert_refused(run("verify", folder / "model.onnx"), *said)


@pytest.mark.parametrize("kept", [[KEY], []])
def test_a_model_whose_metadata_were_dropped_is_refused(folder, kept):
    proto = onnx.load(result(folder))
    entries = [entry for entry in proto.metadata_props if entry.key in kept]
    del proto.metadata_props[:]
    proto.metadata_props.extend(entries)
    onnx.save(proto, result(folder))
    said = "holds no record of what was measured" if kept else "has no provenance"
    assert_refused(run("verify", result(folder)), said)


# what was described otherwise: exit code 3, and 3 to 6 for budgets


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"base": 99.0}, "accuracy of the base 99 recorded"),
        ({"candidate": 99.0}, "accuracy of the model 99 recorded"),
        ({"agreement": 12.5}, "agreement 12.5 recorded"),
        ({"mean_difference": 0.5}, "mean |difference| 0.5 recorded"),
        ({"rows": 25}, "rows 25 recorded, 24 found"),
        ({"output": "other"}, "output 'other' recorded"),
        ({"metric": "", "base": None, "candidate": None}, "metric '' recorded, 'accuracy' found"),
    ],
)
def test_other_answers_than_recorded_are_found(folder, values, said):
    outcome = run("verify", edited(folder, claiming(**values)))
    assert outcome.code == 3, outcome
    assert outcome.err.startswith("onnxslim: answers missed: ")
    assert said in outcome.err


def test_a_claim_that_the_rows_are_others_is_no_way_out(folder):
    outcome = run("verify", edited(folder, claiming(fingerprint="0" * 64)))
    assert_mismatch(outcome, "evaluation rows missed")


@pytest.mark.parametrize(
    ("budgets", "code", "said"),
    [
        ({"max_drop": -50.0}, 3, "max-drop missed"),
        ({"min_agreement": 100.0, "max_drop": -50.0}, 3, "max-drop missed"),
        ({"max_size": 1000}, 6, "max-size missed"),
        ({"min_speedup": 1000.0}, 4, "min-speedup missed"),
    ],
)
def test_recorded_budgets_are_held_again(folder, budgets, code, said):
    """The same exit codes as when it was made."""
    path = edited(folder, lambda measured: replace(measured, budgets=replace(measured.budgets, **budgets)))
    outcome = run("verify", path)
    assert outcome.code == code, outcome
    assert said in outcome.err


def test_a_budget_is_held_as_strictly_as_it_was(folder):
    """24 rows cannot carry an agreement of 99.9 %, nor what they show of it."""
    found = verify(result(folder), Now()).comparison
    assert found is not None
    assert found.fidelity.agreement is not None
    tight = found.fidelity.agreement.value
    path = edited(folder, lambda measured: replace(measured, budgets=replace(measured.budgets, min_agreement=tight)))
    assert run("verify", path).code == 0
    assert run("verify", path, "--strict").code == 3
    edited(folder, lambda measured: replace(measured, strict=True))
    assert run("verify", path, "--junit", folder / "verify.xml").code == 3
    failed = ET.parse(folder / "verify.xml").iterfind(".//testcase[failure]")
    assert [case.get("name") for case in failed] == ["min-agreement"]
    assert run("verify", path).code == 3


def test_a_provider_that_is_not_here_is_said(folder):
    if not target_named("coreml").absent():
        pytest.skip("CoreML runs here")
    outcome = run("verify", edited(folder, claiming(provider="coreml")))
    assert outcome.code == 5, outcome


def test_a_model_that_was_never_evaluated_has_hashes_alone(folder):
    """That is enough, unless --strict asks for a proof."""
    assert run("slim", folder / "model.onnx", "-p", "fuse", "-o", folder / "fused.onnx").code == 0
    outcome = run("verify", folder / "fused.onnx")
    assert outcome.code == 0, outcome
    assert "answers inconclusive: none were recorded" in outcome.out
    assert run("verify", folder / "fused.onnx", "--strict").code == 3


def test_a_budget_that_needs_no_rows_is_held_without_them(folder):
    fused = folder / "fused.onnx"
    assert run("slim", folder / "model.onnx", "-p", "fuse", "-o", fused, "--max-size", "9MB").code == 0
    assert "max-size met" in run("verify", fused).out
    _, measured = read(fused)
    assert measured is not None
    record(fused, replace(measured, budgets=replace(measured.budgets, max_size=9)))
    assert run("verify", fused).code == 6


# what a pipeline reads


def test_junit_markdown_and_json_are_written_before_it_fails(folder, tmp_path):
    """A failed verification is what one wants to read about."""
    path = edited(folder, claiming(candidate=99.0))
    (tmp_path / "summary.md").write_text("earlier\n")
    files = ("--junit", tmp_path / "v.xml", "--markdown", tmp_path / "summary.md")
    outcome = run("verify", path, "--json", *files)
    assert outcome.code == 3
    document = json.loads(outcome.out)
    assert {check["name"]: check["outcome"] for check in document["checks"]}["answers"] == "missed"
    cases = {case.get("name"): case for case in ET.parse(tmp_path / "v.xml").getroot().iter("testcase")}
    assert cases["answers"].find("failure") is not None
    assert cases["content"].find("failure") is None
    assert len(cases) == len(document["checks"]) + len(document["verdicts"])
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("earlier\n### model.int8.onnx\n")
    assert "| answers | MISSED |" in summary


@pytest.mark.parametrize("option", ["--junit", "--markdown"])
def test_the_model_is_never_written_to(folder, option):
    before = result(folder).read_bytes()
    arguments = (option, result(folder), *(["--force"] if option == "--junit" else []))
    assert_refused(run("verify", result(folder), *arguments), "is an input")
    assert result(folder).read_bytes() == before


def test_force_does_something_with_junit_only(folder):
    assert_refused(run("verify", result(folder), "--force"), "--force does nothing without --junit")


# which exit code


@pytest.mark.parametrize(
    ("checks", "strict", "error"),
    [
        ([("content", "missed"), ("answers", "inconclusive")], False, GateError),
        ([("content", "met"), ("answers", "missed")], False, AccuracyGateError),
        ([("content", "missed"), ("answers", "missed")], True, GateError),
        ([("evaluation rows", "inconclusive"), ("answers", "inconclusive")], True, GateError),
        ([("evaluation rows", "inconclusive"), ("answers", "inconclusive")], False, None),
    ],
)
def test_hashes_come_before_answers(made, checks, strict, error):
    _, measured = read(result(made))
    provenance, _ = read(result(made))
    assert measured is not None
    found = Verification(
        *(result(made), made / "model.onnx", provenance, measured),
        tuple(Check(name, outcome, "") for name, outcome in checks),
        *(None, (), (), strict),
    )
    if error is None:
        found.enforce()
        return
    with pytest.raises(GateError) as caught:
        found.enforce()
    assert type(caught.value) is error


# on another CPU


@pytest.mark.parametrize(("turned", "code"), [(False, 0), (True, 3)])
def test_answers_of_another_place_are_held_to_the_budgets(folder, monkeypatch, turned, code):
    """A place that answers as this CPU passes; one whose logits have other signs does not."""
    runner, answers = folder / "runner.py", RUNNER.read_text()
    runner.write_text(answers.replace("np.asarray(values)", "-np.asarray(values)") if turned else answers)
    monkeypatch.setattr("onnxslim_bert.targets.arm64.session.RUNNER", runner)
    setup = Setup(CPU_PROVIDER, start=(sys.executable, "-sP"))
    place = replace(EMULATED["cpu@arm64"], setup=lambda options, threads: setup)
    monkeypatch.setitem(EMULATED, place.name, place)
    outcome = run("verify", result(folder), "--ep", place.name)
    assert outcome.code == code, outcome
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("answers on cpu@arm64")]
    if turned:
        assert "missed: agreement" in line
        assert "min-agreement missed" in line
    else:
        assert line == "answers on cpu@arm64 met: agreement 100.00 %, |difference| 0.0000 from those on cpu"
