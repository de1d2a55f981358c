"""Q/DQ around every operator: weights to half a step, answers near the float model's, and QNN takes every node."""

import functools

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import DISTINCT, SOME, batches, feeds, prepared
from oracles import answers, matrix

from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.observers import Range
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.mask_bias import MaskBias
from onnxslim_bert.passes.quantize_qdq import QuantizeQdq, attention_nodes, choose_narrow
from onnxslim_bert.passes.split_sums import SplitSums
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.int8.qdq_ranges import MOVES, gelu_range
from onnxslim_bert.rewriting.int8.qdq_writer import around_zero, dividing, of_bias, per_output, spanning
from onnxslim_bert.rewriting.trials import Trials
from onnxslim_bert.targets.int8_kernels import u8s8_saturates

SHAPE = (2, 7)
FIXED = FixShapes(*SHAPE)
STANDARD = (Canonicalize(), Fuse(style="standard"), FirstToken())
FORM = (*STANDARD, FIXED, MaskBias(), SplitSums())
WORDS = 37  # rows of the fixtures' largest tables


def calibrated(step: Pass, model: Model) -> Change:
    """Let `step` rewrite `model` on a few full and ragged batches."""
    rows = rows_for(model)
    trials = Trials(model.clone(), rows, rows)
    return step.apply(model, Context(trials.collect(model, step.wants(model)), trials))


def rows_for(model: Model) -> list[Batch]:
    return batches(model, (SHAPE,) * 2)


@functools.cache
def _quantized(name: str, step: QuantizeQdq) -> Model:
    model = prepared(name, *FORM)
    assert calibrated(step, model)
    return model


def quantized(name: str, activations: str = "u16") -> Model:
    """The fixture `name` in QDQ; a copy."""
    return _quantized(name, QuantizeQdq(activations)).clone()


def operators(model: Model) -> list[gs.Node]:
    """The nodes that neither quantize nor dequantize."""
    return [node for node in model.graph.nodes if node.op not in ("QuantizeLinear", "DequantizeLinear")]


def levels_of(tensor: gs.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale, zero point and stored levels (None for an activation) behind a DequantizeLinear."""
    node = producer(tensor)
    assert node.op == "DequantizeLinear"
    scale, zero_point = (constant(t) for t in node.inputs[1:])
    return scale, zero_point, constant(node.inputs[0])


@pytest.mark.parametrize("name", DISTINCT)
def test_every_operator_of_every_export_is_between_q_and_dq(name):
    """Floats come from DequantizeLinear and go to QuantizeLinear; 16 bits lose next to nothing beside the weights."""
    model, exact = quantized(name), with_rounded_weights(prepared(name, *FORM))
    for node in operators(model):
        assert not any(values.dtype.kind == "f" for t in node.inputs if (values := constant(t)) is not None), node.name
        above = {producer(tensor).op for tensor in node.inputs if producer(tensor) is not None}
        below = {reader.op for tensor in node.outputs for reader in tensor.outputs}
        assert "DequantizeLinear" not in above or below == {"QuantizeLinear"}, node.name
        assert "QuantizeLinear" not in below or "DequantizeLinear" in above, node.name
    assert not {"Erf", "Sum", "Where"} & {node.op for node in model.graph.nodes}
    given = [batch.feeds for batch in rows_for(exact)]
    for ours, theirs in zip(answers(model, given), answers(exact, given), strict=True):
        assert 0 < np.abs(ours["logits"] - theirs["logits"]).max() < 2e-3


def with_rounded_weights(model: Model) -> Model:
    """The float model whose matrices hold what their int8 levels stand for."""
    for node in model.graph.nodes:
        weight = node.inputs[1] if node.op in ("MatMul", "Gemm") else None
        if weight is not None and constant(weight) is not None:
            quantizer = per_output(weight.values, axis := 0 if node.attrs.get("transB") else 1)
            scale = np.expand_dims(quantizer.scale, 1 - axis)
            model.replace(weight.name, quantizer.levels(weight.values) * scale)
    return model


@pytest.mark.parametrize("name", SOME)
def test_weights_are_int8_with_a_scale_an_output(name):
    """Each value within half a step of the float weight, and every level in use."""
    model, original = quantized(name), prepared(name, *FORM)
    nodes = {node.name: node for node in model.graph.nodes}
    for layer in original.encoder.layers:
        for linear in layer.linears.values():
            scale, zero_point, levels = levels_of(nodes[linear.node].inputs[1])
            assert (levels.dtype, zero_point.any(), scale.shape) == (np.int8, False, (linear.d_out,))
            assert (np.abs(levels * scale - matrix(original, linear)) <= scale / 2 * (1 + 1e-5)).all()
            assert (np.abs(levels.astype(int)).max(0) == 127).all()


@pytest.mark.parametrize("name", SOME)
def test_what_moves_values_keeps_their_scale(name):
    """Reshape, Transpose, Slice and lookups give the levels that they read."""
    model = quantized(name)
    moving = [node for node in operators(model) if node.op in MOVES]
    assert moving
    for node in moving:
        (reader,) = node.outputs[0].outputs
        for read, written in zip(levels_of(node.inputs[0])[:2], map(constant, reader.inputs[1:]), strict=True):
            np.testing.assert_array_equal(read, written)
            assert read.dtype == written.dtype


def test_what_the_operator_says_is_not_calibrated():
    """Probabilities and Tanh have the quantizers that QNN wants; hidden keys take no levels from the scores."""
    model = quantized("bert-ts17-eager")
    quantizers = {
        node.inputs[0].inputs[0].op: node.inputs[1:] for node in model.graph.nodes if node.op == "QuantizeLinear"
    }
    assert [float(t.values) for t in quantizers["Softmax"]] == [1 / 65536, 0]
    assert [float(t.values) for t in quantizers["Tanh"]] == [1 / 32768, 32768]
    softmax = next(node for node in model.graph.nodes if node.op == "Softmax")
    scale, zero_point, _ = levels_of(softmax.inputs[0])
    assert -40 < -float(scale) * int(zero_point) < -16


def test_padding_reaches_no_answer():
    """Other ids under the mask give the same bits."""
    model = quantized("bert-ts17-sdpa")
    given = feeds(model, *SHAPE)
    ids = next(name for name in given if name == "input_ids")
    hidden = next(values for name, values in given.items() if "mask" in name) == 0
    other = given | {ids: np.where(hidden, 5, given[ids])}
    assert (other[ids] != given[ids]).any()
    ours, theirs = (answers(model, [values])[0]["logits"] for values in (given, other))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("export", ["ts17-eager", "dynamo20-sdpa"])
def test_albert_s_weights_are_stored_once(export):
    """With one scale for all layers."""
    model = quantized(f"albert-{export}")
    matrices = [c for c in model.constants().values() if c.values.dtype == np.int8 and c.values.ndim == 2]
    assert len(matrices) == 6 + 1 + 2  # of a layer, the projection of the tables, pooler and classifier
    assert sum(len(c.outputs) for c in matrices) == len(matrices)


def test_large_tables_are_int8_with_a_scale_a_row(monkeypatch):
    """The product of what two small tables give, to half a level of the row."""
    monkeypatch.setattr("onnxslim_bert.rewriting.int8.qdq_form.FEWEST_ROWS", WORDS)
    float_model = prepared("bert-ts17-eager", *FORM)
    table = float_model.array(float_model.encoder.embeddings.tables["word"])
    model = float_model.clone()
    calibrated(QuantizeQdq(), model)
    unit, peaks = (levels_of(t)[2] for t in _lookups(model, WORDS))
    assert (unit.dtype, unit.shape, peaks.dtype, peaks.shape) == (np.int8, table.shape, np.uint16, (WORDS, 1))
    scales = np.abs(table).max(1, keepdims=True) / 127
    assert (np.abs(unit * scales - table) <= scales / 2 * (1 + 1e-5)).all()
    given = [batch.feeds for batch in rows_for(model)]
    difference = np.abs(answers(model, given)[0]["logits"] - answers(float_model, given)[0]["logits"])
    assert difference.max() < 0.1


def _lookups(model: Model, rows: int) -> list[gs.Tensor]:
    found = [node.inputs[0] for node in model.graph.nodes if node.op == "Gather"]
    found = [tensor for tensor in found if len(levels_of(tensor)[2]) == rows]
    return sorted(found, key=lambda tensor: -levels_of(tensor)[2].shape[1])


@pytest.mark.parametrize("name", SOME)
def test_8_bits_inside_the_attentions_that_were_chosen(name, monkeypatch):
    """There the scores, the probabilities and the mixed values are uint8, and nothing else is."""
    monkeypatch.setattr("onnxslim_bert.passes.quantize_qdq.choose_narrow", lambda base, damaged: [0, 2])
    exact = prepared(name, *FORM)
    inside = [attention_nodes(exact)[layer] for layer in (0, 2)]
    model = exact.clone()
    assert calibrated(QuantizeQdq("mixed"), model).note.endswith("attention of 2 of 3 layers in u8")
    written = [
        node for node in model.graph.nodes if node.op == "QuantizeLinear" and node.inputs[2].values.dtype == np.uint8
    ]
    above = [producer(node.inputs[0]) for node in written]
    computing = {node.name for node in above if node.op not in MOVES and node.op != "DequantizeLinear"}
    assert computing == set.union(*inside)
    given = [batch.feeds for batch in rows_for(exact)]
    for ours, theirs in zip(fused_answers(model, given), answers(exact, given), strict=True):
        assert 0 < np.abs(ours["logits"] - theirs["logits"]).max() < 0.1


def test_8_bits_everywhere():
    """When asked for: no uint16 is left."""
    model, exact = quantized("bert-ts17-eager", "u8"), prepared("bert-ts17-eager", *FORM)
    kinds = {node.inputs[2].values.dtype for node in model.graph.nodes if node.op == "QuantizeLinear"}
    assert kinds == {np.dtype(np.uint8)}
    given = [batch.feeds for batch in rows_for(exact)]
    for ours, theirs in zip(fused_answers(model, given), answers(exact, given), strict=True):
        assert np.abs(ours["logits"] - theirs["logits"]).max() < 0.5


def fused_answers(model, given):
    """With products of integers, where the CPU's are exact; else as written."""
    return answers(model, given, optimize=not u8s8_saturates())


def test_mixed_measures_each_attention():
    """On the rows held back; what is chosen is no worse than the budget says by much."""
    exact = prepared("roberta-ts17-sdpa", *FORM)
    trials = Trials(exact.clone(), rows_for(exact), rows_for(exact))
    context = Context(trials.collect(exact, QuantizeQdq().wants(exact)), trials)
    damage = {}
    for activations in ("u16", "mixed"):
        model = exact.clone()
        QuantizeQdq(activations).apply(model, context)
        damage[activations] = trials.damage(model)
    assert damage["mixed"] < 2 * damage["u16"]


def test_8_bits_are_chosen_while_squared_damages_fit():
    """Cheapest first; a part that costs too much ends the choice, one that helps is free."""
    assert choose_narrow(1.0, [1.2, 1.01, 0.9, 1.1], growth=1.25) == [2, 1, 3]
    assert choose_narrow(1.0, [3.0, 2.0]) == []
    assert choose_narrow(0.0, [0.0, 0.1]) == [0]


def test_quantizers_hold_zero_and_the_ends():
    """By hand, on small numbers."""
    values = np.array([-1.0, 0.0, 0.5, 3.0, 9.0], np.float32)
    assert spanning(-1, 4.1, np.uint8).levels(values).tolist() == [0, 50, 75, 200, 255]
    assert spanning(2, 5.1, np.uint8).levels(values).tolist() == [0, 0, 25, 150, 255]
    assert spanning(0, 0, np.uint16).levels(np.zeros(3)).tolist() == [0, 0, 0]
    assert around_zero(1).levels(values).tolist() == [-127, 0, 64, 127, 127]
    assert dividing(-1, 1, np.uint8).levels(np.array([-1, 0, 1])).tolist() == [0, 128, 255]
    weight = np.array([[1.27, 0.0], [-0.5, 2.54], [0.0, 0.01]], np.float32)
    quantizer = per_output(weight, axis=1)
    assert quantizer.levels(weight).tolist() == [[127, 0], [-50, 127], [0, 0]]
    np.testing.assert_array_equal(per_output(weight.T, axis=0).levels(weight.T).T, quantizer.levels(weight))
    bias = of_bias(spanning(0, 6.5535, np.uint16), quantizer)
    assert bias.levels(np.array([1.0, -2.0], np.float32)).tolist() == [1000000, -1000000]


def test_gelu_of_a_range_is_a_range():
    """With its least value where that lies inside."""
    assert gelu_range(Range(-5, 2)).low == pytest.approx(-0.16997, abs=1e-4)
    assert gelu_range(Range(-5, 2)).high == pytest.approx(1.9545, abs=1e-4)
    assert gelu_range(Range(-0.5, 0)).low == pytest.approx(-0.15427, abs=1e-4)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            (Canonicalize(), FIXED, Fuse()),
            r"is a com.microsoft operator; run canonicalize,fuse\{style=standard\} first",
        ),
        ((*STANDARD, SplitSums()), "the shape of tensor .* is not fixed; run fix-shapes first"),
        ((*STANDARD, FIXED), "adds any number of tensors; run split-sums first"),
        ((Canonicalize(), FIXED), "hides tokens by infinity or nearly; run mask-bias first"),
        ((*STANDARD, FIXED, SplitSums(), Float16()), "computes in float16; start from the float32 model"),
    ],
)
def test_another_form_is_refused(steps, message):
    """Naming the pass to run first, before any calibration."""
    model = prepared("bert-ts17-eager", *steps)
    with pytest.raises(PassError, match=message):
        list(QuantizeQdq().wants(model))
    with pytest.raises(PassError, match=message):
        QuantizeQdq().apply(model, Context())


def test_quantizing_twice_is_refused():
    with pytest.raises(PassError, match="is quantized already; start from the float model"):
        list(QuantizeQdq().wants(quantized("bert-ts17-eager")))


def test_unknown_activations_are_refused():
    with pytest.raises(PassError, match="activations='u4' is not one of u16, u8, mixed"):
        QuantizeQdq("u4")


@pytest.mark.parametrize(("name", "activations"), [("bert-ts17-sdpa", "u16"), ("albert-dynamo20-sdpa", "mixed")])
def test_qnn_takes_every_node(name, activations, tmp_path):
    """In one partition on the emulator, whose answers are the CPU provider's to a few levels."""
    pytest.importorskip("onnxruntime_qnn")
    from onnxslim_bert.targets.session import open_on
    from onnxslim_bert.targets.table import TARGETS

    model = quantized(name, activations)
    model.save(tmp_path / "model.onnx")
    session, placement = open_on(TARGETS["qnn"], tmp_path / "model.onnx")
    assert (placement.whole, placement.left) == (True, ())
    given = feeds(model, *SHAPE)
    (ours,) = session.run(None, given)
    assert np.abs(ours - answers(model, [given])[0]["logits"]).max() < 0.05
