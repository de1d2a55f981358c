"""Weights alone in eight bits: to half a step, stored once, standard operators, float activations."""

import numpy as np
import onnxruntime as ort
import pytest
from graphs import DISTINCT, SOME, apply, every_padding, prepared
from int8_oracles import linears_of
from oracles import answers, assert_same_outputs, matrix

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.probe import producer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.quantize_weights import QuantizeWeights
from onnxslim_bert.passes.share_weights import ShareWeights
from onnxslim_bert.targets.session import open_on
from onnxslim_bert.targets.table import TARGETS

CANONICAL, STANDARD, FIRST, WEIGHTS = Canonicalize(), Fuse(style="standard"), FirstToken(), QuantizeWeights()


def restored(model: Model) -> Model:
    """`model` with every int8 constant put back as the floats that it stands for."""
    copy = model.clone()
    for node in [node for node in copy.graph.nodes if node.op == "DequantizeLinear"]:
        integers, scales, *zero_points = (tensor.values.astype(np.float32) for tensor in node.inputs)
        shape = (-1, 1) if node.attrs["axis"] == 0 else (1, -1)
        zero = zero_points[0].reshape(shape) if zero_points else 0
        table = copy.graph.tensors()[node.outputs[0].name]
        constant = table.to_constant((integers - zero) * scales.reshape(shape))
        constant.inputs.clear()
    copy.changed()
    return copy


def float_matrices(model: Model) -> set[str]:
    """The matrices that are not integers."""
    return {n for n, c in model.constants().items() if c.values.ndim == 2 and c.values.dtype.kind == "f"}


@pytest.mark.parametrize("name", DISTINCT)
def test_every_weight_is_within_half_a_step(name):
    """Each output channel by itself, its 256 levels used up; tables by row. No float copy is left."""
    model, original = (prepared(name, CANONICAL, STANDARD, *steps) for steps in ((WEIGHTS,), ()))
    for role, name_before in original.encoder.embeddings.tables.items():
        table, rows = original.array(name_before), model.array(model.encoder.embeddings.tables[role])
        scales = model.graph.tensors()[model.encoder.embeddings.tables[role]].outputs[0].inputs[1].values[:, None]
        assert (rows.dtype, scales.shape) == (np.int8, (len(table), 1)), role
        assert (np.abs(rows * scales - table) <= scales / 2 * (1 + 1e-5)).all(), role
    for linear, before in zip(linears_of(model), linears_of(original), strict=True):
        integers, weight = matrix(model, linear), matrix(original, before)
        node = next(node for node in model.graph.nodes if node.name == linear.node)
        _, scales, zero_points = (tensor.values for tensor in producer(node.inputs[1]).inputs)
        assert (integers.dtype, scales.shape, zero_points.dtype) == (np.uint8, (linear.d_out,), np.uint8)
        close = np.abs((integers - zero_points.astype(np.float32)) * scales - weight)
        assert (close <= scales / 2 * (1 + 1e-4)).all(), linear.node
        assert (integers.min(0) <= 1).all(), linear.node
        assert (integers.max(0) >= 254).all(), linear.node
    assert float_matrices(model) == {linear.weight for linear in model.encoder.head}, "narrow ones stay float"


@pytest.mark.parametrize("name", SOME)
def test_the_model_computes_with_the_restored_weights(name):
    """In float: the same as with those weights written out, and near to the original."""
    model, original = (prepared(name, CANONICAL, STANDARD, FIRST, *steps) for steps in ((WEIGHTS,), ()))
    given = every_padding(model)
    assert_same_outputs(model, restored(model), given, atol=1e-5, optimize=False)
    for ours, exact in zip(answers(model, given, optimize=False), answers(original, given), strict=True):
        assert 0 < np.abs(ours["logits"] - exact["logits"]).max() < 0.1


@pytest.mark.parametrize("name", SOME)
def test_only_standard_operators_are_written(name):
    """And the encoder is found in them: a second pass sees what it needs."""
    model = prepared(name, CANONICAL, STANDARD, WEIGHTS)
    assert not {node.domain for node in model.graph.nodes} - {None, ""}
    assert all(linear.quantized for linear in linears_of(model))
    assert not [node.op for node in model.graph.nodes if "QuantizeLinear" in node.op and node.op[0] == "Q"]


@pytest.mark.parametrize("name", SOME)
def test_the_file_stays_in_eight_bits(name, tmp_path):
    """Neither canonicalize nor a session that writes its graph back folds the weights into floats."""
    model = prepared(name, CANONICAL, STANDARD, WEIGHTS)
    assert float_matrices(prepared(name, CANONICAL, STANDARD, WEIGHTS, CANONICAL)) == float_matrices(model)
    model.save(tmp_path / "int8.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "basic.onnx")
    ort.InferenceSession(str(tmp_path / "int8.onnx"), options, ["CPUExecutionProvider"])
    assert float_matrices(Model.load(tmp_path / "basic.onnx")) == float_matrices(model)


@pytest.mark.parametrize("export", ["ts13-eager", "dynamo20-sdpa"])
def test_albert_s_weights_are_stored_once(export):
    model = prepared(f"albert-{export}", CANONICAL, STANDARD, WEIGHTS)
    for role in model.encoder.layers[0].linears:
        assert len({layer.linears[role].weight for layer in model.encoder.layers}) == 1
    matrices = [c.values.shape for c in model.constants().values() if c.values.dtype == np.uint8 and c.values.ndim == 2]
    assert sorted(matrices) == sorted([(12, 12)] * 4 + [(12, 20), (20, 12), (10, 12)])


def test_a_table_tied_to_the_head_is_stored_once():
    """In the table's form, which the head reads as well."""
    original, model = (prepared("bert-mlm-tied", CANONICAL, STANDARD, ShareWeights(), *x) for x in ((), (WEIGHTS,)))
    rows, width = original.array(original.encoder.embeddings.word).shape
    held = [c.values for c in model.constants().values() if sorted(c.values.shape) == sorted((rows, width))]
    assert [values.dtype for values in held] == [np.int8]
    assert_same_outputs(model, restored(model), every_padding(model), atol=1e-5, optimize=False)


@pytest.mark.parametrize("name", SOME)
def test_openvino_takes_it_whole(name, tmp_path):
    """Every node, in its default precision, with answers near the float model's."""
    pytest.importorskip("onnxruntime_ep_openvino")
    if reason := TARGETS["openvino"].absent():
        pytest.skip(reason)
    model, original = (prepared(name, CANONICAL, STANDARD, FIRST, *steps) for steps in ((WEIGHTS,), ()))
    model.save(tmp_path / "int8.onnx")
    placed = open_on(TARGETS["openvino"], tmp_path / "int8.onnx")
    assert placed.placement.whole
    (given, *_), (exact, *_) = every_padding(model), answers(original, every_padding(model)[:1])
    np.testing.assert_allclose(placed.session.run(["logits"], given)[0], exact["logits"], atol=0.1)


def test_tables_stay_float_when_asked():
    model = prepared("bert-ts17-eager", CANONICAL, STANDARD, QuantizeWeights(embeddings=False))
    assert {model.array(name).dtype for name in model.encoder.embeddings.tables.values()} == {np.dtype(np.float32)}
    assert all(linear.quantized for linear in linears_of(model))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((WEIGHTS,), "quantized already; start from the float model"),
        ((QuantizeStatic(format="qdq"),), "quantized already; start from the float model"),
        ((Float16(),), "is float16; start from the float32 model"),
    ],
    ids=["twice", "static", "float16"],
)
def test_what_is_not_float32_is_refused(steps, message):
    with pytest.raises(PassError, match=message):
        apply(WEIGHTS, prepared("bert-ts17-eager", CANONICAL, STANDARD, *steps))


@pytest.mark.parametrize("name", ["quantized-dynamic", "quantized-qdq"])
def test_what_others_quantized_is_refused(name):
    with pytest.raises(PassError, match="quantized already"):
        apply(WEIGHTS, prepared(name, CANONICAL))
