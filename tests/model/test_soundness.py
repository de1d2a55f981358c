"""What fails where the encoder is looked for is said of the graph when ONNX Runtime does not run it, else of us."""

import numpy as np
import pytest
from command_line import run, workspace
from graphs import SOME, prepared

from onnxslim_bert.errors import FaultError, NoEncoderError
from onnxslim_bert.model import find_encoder
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.soundness import why_unsound
from onnxslim_bert.passes.canonicalize import Canonicalize


def broken(*_: object) -> None:
    raise KeyError("layer.0")


@pytest.mark.parametrize("name", SOME)
def test_graphs_that_run_are_sound(name):
    assert why_unsound(prepared(name, Canonicalize()).graph) == ""


def test_a_failure_on_a_sound_graph_is_our_fault(monkeypatch):
    monkeypatch.setattr(find_encoder, "find_embeddings", broken)
    model = prepared("bert-ts17-sdpa", Canonicalize())
    model.changed()
    said = r"a fault of onnxslim-bert, not of the model: .* KeyError \('layer\.0'\) came up in test_soundness\.py, line"
    with pytest.raises(FaultError, match=said):
        assert model.encoder


def unrunnable() -> Model:
    """A BERT whose first dense weight has a row too few."""
    model = prepared("bert-ts17-sdpa", Canonicalize())
    weight = model.encoder.layers[0].query.weight
    model.replace(weight, np.ascontiguousarray(model.array(weight)[1:]))
    return model


def test_a_failure_on_a_graph_that_does_not_run_is_the_graph_s(monkeypatch):
    model = unrunnable()
    monkeypatch.setattr(find_encoder, "_layer", broken)
    with pytest.raises(NoEncoderError, match=r"fits no encoder that is read here: .*(cannot load|does not run)"):
        assert model.encoder


@pytest.mark.parametrize(
    "command",
    ["inspect {}", "slim {} -p canonicalize?,fuse? -o made.onnx", "quantize {} --mode dynamic --data eval.tsv"],
)
def test_our_fault_is_one_line_and_never_passed_over(tmp_path, monkeypatch, command):
    """Exit code 1, not 2: there is nothing that the user could mend. Optional passes do not skip it, either."""
    monkeypatch.setattr(find_encoder, "find_embeddings", broken)
    monkeypatch.chdir(tmp_path)
    ended = run(*command.format(workspace(tmp_path).name).split())
    assert (ended.code, len(ended.err.strip().splitlines())) == (1, 1)
    assert "a fault of onnxslim-bert" in ended.err
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "tokenizer.json", "calib.tsv", "eval.tsv"}
