"""`onnxslim MODEL`: the command that is printed first works, and estimates are marked as such."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from command_line import ROOT, assert_refused, run, workspace
from graphs import fixture

from onnxslim_bert.inspection import outlook


def test_a_model_without_a_verb_is_described_with_what_can_be_done(tmp_path: Path) -> None:
    """What it is, the machine, and offers whose commands are commands of this program that parse and run."""
    folder = tmp_path / "sst2 tiny"
    shutil.copytree(ROOT / "models/sst2-tiny", folder)
    done = run(folder)
    assert done.code == 0, done
    assert done.out.startswith(f"{folder}/model.onnx: BertForSequenceClassification, 4 layers of width 192, 6 heads")
    assert "as fast (estimate)" in done.out
    assert "as fast (timed)" in done.out
    commands = [shlex.split(line) for line in done.out.splitlines() if line.startswith("    onnxslim ")]
    assert [words[1] for words in commands] == ["quantize", "slim", "slim"]
    exact = run(*commands[1][1:])
    assert exact.code == 0, exact
    assert (folder.parent / "sst2 tiny-exact/onnx/model_quantized.onnx").is_file()


def test_sizes_are_those_of_the_written_file_and_speeds_are_marked(tmp_path: Path) -> None:
    """As JSON: the int8 file is within 2 % of the size that was computed for it."""
    model = tmp_path / "model.onnx"
    shutil.copyfile(ROOT / "models/sst2-tiny/model.onnx", model)
    found = json.loads(run(model, "--json").out)
    offer = found["offers"][0]
    assert (offer["known"], offer["command"]) == ("estimate", f"onnxslim quantize {model} --mode dynamic")
    assert run("slim", model, "-p", "@exact,quantize-dynamic", "-o", tmp_path / "out.onnx").code == 0
    assert (tmp_path / "out.onnx").stat().st_size == pytest.approx(offer["nbytes"], rel=0.02)
    assert offer["speedup"] > 0
    assert found["ms"] > 0


def test_the_estimate_swaps_float_products_for_int8_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 ms, of which products take 6 in float and 2 in int8, the rest stays: 6 ms, so 20 / 6 of what took 20."""
    monkeypatch.setattr(outlook, "_timed", lambda path, model, workload: (20.0, 10.0))
    monkeypatch.setattr(outlook, "_products", lambda model, rows: (6.0, 2.0))
    found = outlook.outlook(fixture("bert-ts17-sdpa"))
    assert found.offers[0].speedup == pytest.approx(20 / 6)
    assert [offer.speedup for offer in found.offers if offer.known == "timed"] == [2.0]


def test_what_cannot_be_improved_is_said(tmp_path: Path) -> None:
    """A quantized model: what it is, and a line with the reason; nothing at all is exit code 2 as everywhere."""
    done = run(fixture("quantized-qdq"))
    assert done.code == 2
    assert "3 layers of width 12" in done.out
    assert "quantized already" in done.err
    assert_refused(run(tmp_path / "gone.onnx"), "gone.onnx: no such file")
    assert_refused(run(tmp_path), "a folder; an ONNX model was needed")


def test_a_word_that_is_no_path_is_still_a_command_that_is_not_there(tmp_path: Path) -> None:
    """Commands win over paths of their names, and near misses are told as before."""
    assert_refused(run("quantise"), "did you mean 'quantize'?")
    assert_refused(run("nothing"), "No such command")
    model = workspace(tmp_path)
    assert_refused(run("quantise", model), "did you mean 'quantize'?")
