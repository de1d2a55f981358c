"""Context binaries: whole models only, one file a chip, checked by loading, and written whole or not at all."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import contents, run
from onnx import TensorProto, helper, numpy_helper

from onnxslim_bert.device.compile_context import compile_contexts, default_outputs
from onnxslim_bert.errors import OutputError, ProviderError
from onnxslim_bert.job.trailer import write_trailer
from onnxslim_bert.recipes.provenance import KEY, MEASURED, notes
from onnxslim_bert.targets.session import open_on
from onnxslim_bert.targets.table import TARGETS

QNN = TARGETS["qnn"]


def tiny(path: Path, operator: str = "Relu") -> Path:
    """y [2, 3] = operator(x [2, 5] w)."""
    weights = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "dense"), helper.make_node(operator, ["h"], ["y"], "last")]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, width]) for n, width in (("x", 5), ("y", 3)))
    graph = helper.make_graph(nodes, "tiny", [x], [y], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("socs", "output", "expected"),
    [
        (["57"], None, {"57": "model.qnn.ctx.onnx"}),
        (["57", "57"], None, {"57": "model.qnn.ctx.onnx"}),
        (["57", "69"], None, {"57": "model.qnn.soc57.ctx.onnx", "69": "model.qnn.soc69.ctx.onnx"}),
        (["57"], "a.onnx", {"57": "a.onnx"}),
        (["57", "69"], "a.onnx", {"57": "a.soc57.onnx", "69": "a.soc69.onnx"}),
        (["57", "69"], "b.ctx.onnx", {"57": "b.soc57.ctx.onnx", "69": "b.soc69.ctx.onnx"}),
    ],
)
def test_files_are_named_by_their_chips_when_there_are_several(tmp_path, socs, output, expected):
    found = default_outputs(tmp_path / "model.qnn.onnx", socs, output and tmp_path / output)
    assert found == {soc: tmp_path / name for soc, name in expected.items()}


def test_a_chip_or_a_compiler_that_is_not_known_is_refused(tmp_path):
    """Before any work, for all chips."""
    pytest.importorskip("onnxruntime_qnn")
    source = tiny(tmp_path / "m.onnx")
    with pytest.raises(ProviderError, match=r"does not know soc_model=30 .*: it knows 36 \(v69\)"):
        compile_contexts(source, {"57": tmp_path / "a.onnx", "30": tmp_path / "b.onnx"}, QNN)
    with pytest.raises(ProviderError, match="cpu compiles nothing ahead of time; qnn does"):
        compile_contexts(source, {"57": tmp_path / "a.onnx"}, TARGETS["cpu"])
    assert list(contents(tmp_path)) == ["m.onnx"]


def test_files_that_exist_are_kept(tmp_path):
    """An output that is the model, or there already."""
    pytest.importorskip("onnxruntime_qnn")
    source = tiny(tmp_path / "m.onnx")
    (tmp_path / "there.onnx").write_bytes(b"mine")
    with pytest.raises(OutputError, match="is an input"):
        compile_contexts(source, {"57": source}, QNN, overwrite=True)
    with pytest.raises(OutputError, match=r"there\.onnx exists"):
        compile_contexts(source, {"57": tmp_path / "new.onnx", "69": tmp_path / "there.onnx"}, QNN)
    assert list(contents(tmp_path)) == ["m.onnx", "there.onnx"]


def test_each_chip_gets_a_file_that_answers_the_same(tmp_path, monkeypatch):
    """One node that holds the binary, whose answers are those of the model; by the command too."""
    pytest.importorskip("onnxruntime_qnn")
    source = tiny(tmp_path / "m.onnx")
    done = compile_contexts(source, default_outputs(source, ["57", "69"]), QNN)
    assert list(contents(tmp_path)) == ["m.onnx", "m.soc57.ctx.onnx", "m.soc69.ctx.onnx"]
    assert [(file.soc, file.arch, file.placement.taken) for file in done] == [("57", "75", 2), ("69", "79", 2)]
    feeds = {"x": np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)}
    expected = open_on(QNN, source).session.run(None, feeds)[0]
    for file in done:
        assert [node.op_type for node in onnx.load(file.path).graph.node] == ["EPContext"]
        session, placement = open_on(QNN, file.path, options={"soc_model": file.soc})
        assert placement.whole
        np.testing.assert_array_equal(session.run(None, feeds)[0], expected)
        assert file.nbytes == file.path.stat().st_size
    monkeypatch.setitem(__import__("onnxslim_bert.cli").cli.COMMANDS, "compile", "Compile.")
    outcome = run("compile", source, "--soc", "43", "-o", tmp_path / "c.onnx")
    assert (outcome.code, outcome.err) == (0, "")
    assert "for soc 43 (v73), all 2 nodes in 1 partition; answers the same when loaded" in outcome.out
    outcome = run("compile", source, "--soc", "58")
    assert (outcome.code, outcome.out) == (5, "")


def test_what_was_measured_of_a_model_is_not_said_of_its_context(tmp_path):
    pytest.importorskip("onnxruntime_qnn")
    source = tiny(tmp_path / "m.onnx")
    for key in (KEY, MEASURED):
        write_trailer(source, key, "{}")
    compile_contexts(source, {"57": tmp_path / "a.onnx"}, QNN)
    assert {KEY, MEASURED} <= notes(source).keys()
    assert {KEY, MEASURED} & notes(tmp_path / "a.onnx").keys() == {KEY}


def test_a_model_that_is_not_taken_whole_is_refused(tmp_path):
    """With the node and QNN's reason; nothing is left behind."""
    pytest.importorskip("onnxruntime_qnn")
    source = tiny(tmp_path / "m.onnx", "Erf")
    with pytest.raises(ProviderError, match=r"qnn leaves .* node.*Erf"):
        compile_contexts(source, {"57": tmp_path / "a.onnx"}, QNN)
    assert list(contents(tmp_path)) == ["m.onnx"]


def test_a_file_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    """Here because the second session is made to."""
    pytest.importorskip("onnxruntime_qnn")
    answers = iter([[np.zeros(3)], [np.ones(3)]])
    monkeypatch.setattr("onnxslim_bert.device.compile_context.run", lambda session, feeds: next(answers))
    source = tiny(tmp_path / "m.onnx")
    with pytest.raises(ProviderError, match="compiled for soc_model=57 answers otherwise when loaded"):
        compile_contexts(source, {"57": tmp_path / "a.onnx"}, QNN)
    assert list(contents(tmp_path)) == ["m.onnx"]
