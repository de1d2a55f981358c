"""`onnxslim MODEL`: the command that is printed first works, and estimates are marked as such."""

import json
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest
from command_line import ROOT, assert_refused, run, workspace
from graphs import fixture

from onnxslim_bert.inspection import outlook
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.recipes.int8 import EXACT
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.int8.layers import write_stand_in


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


def test_the_estimate_is_the_speed_of_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 ms as it is, 10 after the exact rewriting and 5 with int8 layers: 2 and 4 times as fast."""
    monkeypatch.setattr(outlook, "_timed", lambda path, model, workload: (20.0, 10.0, 5.0))
    found = outlook.outlook(fixture("bert-ts17-sdpa"))
    assert found.offers[0].speedup == pytest.approx(4)
    assert [offer.speedup for offer in found.offers if offer.known == "timed"] == [2.0]
    assert "5.00 ms in a stand-in" in found.basis


def test_the_stand_in_has_the_layers_of_the_written_file(tmp_path: Path) -> None:
    """It is timed in its place: as many products in int8, and none in float more than there."""
    model = tmp_path / "model.onnx"
    shutil.copyfile(ROOT / "models/sst2-tiny/model.onnx", model)
    assert run("slim", model, "-p", "@exact,quantize-dynamic", "-o", tmp_path / "out.onnx").code == 0
    alike = Model.load(model)
    run_recipe(alike, Recipe.parse(EXACT))
    write_stand_in(alike)
    theirs, ours = (
        Counter(node.op for node in each.graph.nodes if "MatMul" in node.op or "Attention" in node.op)
        for each in (Model.load(tmp_path / "out.onnx"), alike)
    )
    assert ours == theirs
    assert ours["MatMulIntegerToFloat"] > 20


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
