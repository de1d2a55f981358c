"""`quantize` and `slim` for other targets: what they write, where it runs, and what they refuse."""

import json

import onnx
import pytest
from command_line import assert_refused, contents, run, workspace

from onnxslim_bert.cli.options import TARGETS as NAMES
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.recipes.lowering import CPU_MODES, LOWERINGS, lowered, lowering, mode_for
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.targets.table import TARGETS


@pytest.fixture
def model(tmp_path):
    return workspace(tmp_path)


def quantized(model, *arguments, name):
    """Run `onnxslim quantize MODEL ARGUMENTS`; the report of what it wrote to `name`."""
    outcome = run("quantize", model, *arguments)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return outcome.out, json.loads((model.parent / name).read_text())


def shapes(path):
    return [[d.dim_value for d in i.type.tensor_type.shape.dim] for i in onnx.load(path).graph.input]


@pytest.mark.parametrize("target", ["coreml", "nnapi"])
def test_a_predicted_target_gets_a_model_that_it_would_take_whole(model, target):
    """And whose answers are the source's, on the CPU."""
    evaluation = model.parent / "eval.tsv"
    out, report = quantized(model, "--target", target, "--seq", 16, "--data", evaluation, name=f"model.{target}.json")
    place = report["placement"]
    assert (place["predicted"], place["partitions"], place["left"]) == (True, 1, [])
    assert place["taken"] == place["total"] > 0
    assert "predicted by the provider's rules" in out
    assert report["proven_on"] == "cpu"
    assert report["comparison"]["fidelity"]["max_difference"] < 1e-2
    assert report["latencies"] == []
    assert {*map(tuple, shapes(model.with_suffix(f".{target}.onnx")))} == {(1, 16)}


def test_qnn_runs_it_whole(model):
    pytest.importorskip("onnxruntime_qnn")
    rows = ["--calib", model.parent / "calib.tsv", "--data", model.parent / "eval.tsv"]
    out, report = quantized(model, "--target", "qnn", "--seq", 16, *rows, name="model.qnn.json")
    place = report["placement"]
    assert (place["predicted"], place["partitions"], place["left"]) == (False, 1, [])
    assert "latency: not measured" in out
    assert report["comparison"]["fidelity"]["agreement"]["value"] > 90
    types = {t.data_type for t in onnx.load(model.with_suffix(".qnn.onnx")).graph.initializer if len(t.dims) == 2}
    assert onnx.TensorProto.INT8 in types


def test_openvino_gets_int8_weights_and_float_activations(model):
    _, report = quantized(model, "--target", "openvino", name="model.openvino.json")
    nodes = {node.op_type for node in onnx.load(model.with_suffix(".openvino.onnx")).graph.node}
    assert "DequantizeLinear" in nodes
    assert "QuantizeLinear" not in nodes
    assert bool(report["placement"]) is not bool(TARGETS["openvino"].absent())


def test_several_lengths_share_their_weights(model):
    """A folder with a file for each, and a manifest that says which to take."""
    asked = ["--target", "qnn", "--mode", "fp32", "--data", model.parent / "eval.tsv"]
    out, report = quantized(model, *asked, "--seq", "16,8", name="model-qnn.json")
    folder = model.parent / "model-qnn"
    assert json.loads((folder / "manifest.json").read_text())["lengths"] == {"8": "model.8.onnx", "16": "model.16.onnx"}
    assert {*map(tuple, shapes(folder / "model.8.onnx"))} == {(1, 8)}
    assert report["buckets"] == {"8": "model.8.onnx", "16": "model.16.onnx"}
    assert "lengths: 8 in model.8.onnx, 16 in model.16.onnx" in out
    assert report["output_bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    before = contents(model.parent)
    again = run("quantize", model, *asked, "--seq", "16,8")
    assert_refused(again, "exists; give another output or --force")
    assert contents(model.parent) == before
    assert run("quantize", model, *asked, "--seq", "8,16", "--force").code == 0
    assert contents(model.parent).keys() == before.keys()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "coreml"], "coreml takes fixed shapes only: give the tokens in a row, like --seq 128"),
        (["--target", "openvino", "--seq", 16], "--seq does nothing for openvino, whose files take any length"),
        (["--seq", 16], "--seq does nothing for cpu, whose files take any length"),
        (["--target", "nnapi", "--seq", "8,16"], "nnapi takes no weights from outside a model's file"),
        (["--target", "qnn", "--seq", "8,8"], "--seq names a length twice"),
        (["--target", "nnapi", "--seq", 8, "--mode", "fp16"], "--mode fp16 is not for nnapi; it takes fp32"),
        (["--target", "qnn", "--seq", 8], "static quantization needs calibration texts"),
        (["--target", "qnn", "--seq", 8, "--method", "mse"], "--method does nothing with --mode static for qnn"),
        (["--target", "coreml", "--seq", 8, "--batch"], "--batch does nothing with --mode fp16 for coreml"),
        (["--target", "coreml", "--seq", 8, "--reduce-range"], "--reduce-range does nothing with --mode fp16"),
        (["--allow-fallback"], "--allow-fallback does nothing for cpu"),
        (["--target", "coreml", "--seq", 10_000], "seq=10000 is too long for the position table"),
    ],
)
def test_what_would_do_nothing_is_refused(model, arguments, said):
    before = contents(model.parent)
    assert_refused(run("quantize", model, *arguments), said)
    assert contents(model.parent) == before


def test_slim_ends_with_the_form_of_the_target(model):
    """A recipe, and after it what the target wants."""
    output = model.parent / "small.onnx"
    rows = ["--calib", model.parent / "calib.tsv"]
    recipe = "canonicalize?,fuse,prune-ffn{keep=0.5}"
    outcome = run("slim", model, "-p", recipe, "--target", "nnapi", "--seq", 12, *rows, "-o", output)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    assert {*map(tuple, shapes(output))} == {(1, 12)}
    assert {i.type.tensor_type.elem_type for i in onnx.load(output).graph.input} == {onnx.TensorProto.INT32}
    refused = run("slim", model, "-p", recipe, "--seq", 12, *rows, "-o", model.parent / "b.onnx")
    assert_refused(refused, "--seq does nothing for cpu")


def test_slim_quantizes_for_qnn_on_rows_of_the_length_that_it_fixes(model):
    output = model.parent / "small.onnx"
    rows = ["--calib", model.parent / "calib.tsv", "--data", model.parent / "eval.tsv"]
    recipe = "canonicalize?,fuse,prune-ffn{keep=0.5}"
    outcome = run("slim", model, "-p", recipe, "--target", "qnn", "--seq", 12, *rows, "-o", output)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    assert "quantize-qdq: " in outcome.out
    assert {*map(tuple, shapes(output))} == {(1, 12)}
    assert len(Model.load(output).encoder.layers) == len(Model.load(model).encoder.layers)


@pytest.mark.full_range
def test_reduced_range_is_kept_within_16_bits(model):
    """The command says what other CPUs lose, and the option takes it away."""
    rows = ["--calib", model.parent / "calib.tsv", "--data", model.parent / "eval.tsv"]
    out, report = quantized(model, *rows, "--full-range", name="model.int8.json")
    assert report["saturating"]["layers"] > 0
    assert "`quantize --reduce-range`, in a recipe quantize-static{reduce-range=true}" in out
    out, report = quantized(model, *rows, "--reduce-range", "--force", name="model.int8.json")
    assert report["saturating"] == {"layers": 0, "worst": "", "loss": 0.0}
    assert "--reduce-range" not in out
    assert "reduce-range=true" in report["provenance"]["recipe"]


def test_every_target_has_a_lowering():
    """The command line names those of the table; a target's modes are recipes."""
    assert list(TARGETS) == NAMES == ["cpu", *LOWERINGS]
    for name, found in LOWERINGS.items():
        assert found.is_fixed is TARGETS[name].fixed_shapes
        for mode in found.modes:
            form, then = lowering(name, mode, 32 if found.is_fixed else None)
            assert form.steps
            assert str(then) == ",".join(found.modes[mode])
    assert lowered(Recipe.parse("fuse"), "cpu", None) == Recipe.parse("fuse")
    assert mode_for("cpu", None) == CPU_MODES[0]


def test_float_inputs_stay_those_of_the_model(model):
    """Names and order are kept, whatever the target does to types and shapes."""
    names = [tensor.name for tensor in onnx.load(model).graph.input]
    quantized(model, "--target", "nnapi", "--seq", 8, name="model.nnapi.json")
    assert [tensor.name for tensor in onnx.load(model.with_suffix(".nnapi.onnx")).graph.input] == names
