"""Padding reaches no dense layer, and no answer changes."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from graphs import DISTINCT, PADDINGS, SOME, apply, every_padding, feeds, fixture, prepared, reference, shared_graph
from oracles import answers, assert_layers, assert_same_outputs, values_of

from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.rewriting.contract import Context

CANONICAL, FUSE, STANDARD = Canonicalize(), Fuse(), Fuse(style="standard")
FIRST, UNPAD = FirstToken(), Unpad()


@pytest.mark.parametrize("name", [*DISTINCT, "fused-attention", "fused-mha"])
def test_a_ragged_batch_answers_the_same(name):
    """With padding right, left, in holes, nowhere; with one row; and with random ids where the padding is."""
    model = prepared(name, CANONICAL, FUSE, UNPAD)
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", [*DISTINCT, "fused-attention", "fused-mha"])
def test_with_first_token_a_ragged_batch_answers_the_same(name):
    model = prepared(name, CANONICAL, FUSE, FIRST, UNPAD)
    assert model.encoder.layers[-1].first_token
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize(
    "steps",
    [(UNPAD,), (STANDARD, UNPAD), (STANDARD, FIRST, UNPAD), (FUSE, UNPAD, FIRST)],
    ids=["as exported", "standard", "standard first", "first-token after"],
)
def test_other_forms_and_orders_answer_the_same(name, steps):
    model = prepared(name, CANONICAL, *steps)
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("padding", PADDINGS)
def test_dense_layers_see_the_real_tokens_only(name, padding):
    """As many rows as the mask has ones, and position 0 of a row that hides it."""
    model = prepared(name, CANONICAL, FUSE, UNPAD)
    given = feeds(model, 4, 9, padding)
    sources = [linear.source for layer in model.encoder.layers for linear in layer.linears.values()]
    shapes = {values.shape[:-1] for values in values_of(model, sources, given)}
    kept = given["attention_mask"].copy()
    kept[:, 0] = 1
    assert shapes == {(kept.sum(),)}


@pytest.mark.parametrize("name", SOME)
def test_the_encoder_is_still_found(name):
    model = prepared(name, CANONICAL, FUSE, UNPAD)
    assert_layers(model, reference(name))


@pytest.mark.parametrize("form", ["contrib", "qdq"])
@pytest.mark.parametrize("name", SOME)
def test_an_int8_graph_answers_the_same(name, form):
    """Ranges are fixed, so that they do not depend on padding."""
    before = prepared(name, CANONICAL, FUSE if form == "contrib" else STANDARD, QuantizeStatic(format=form))
    model = before.clone()
    assert apply(UNPAD, model)
    assert_same_outputs(model, before, every_padding(model), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "steps", "reason"),
    [
        ("bert-features", (FUSE,), "padding positions are read: the whole last hidden state is an output"),
        ("bert-mlm", (FUSE,), "padding positions are read: "),
        ("bert-nomask", (FUSE,), "the model reads no attention mask, so it has no padding to drop"),
        ("decoder-ts17", (FUSE,), "padding positions are read: node "),
        ("bert-ts17-eager", (FUSE, UNPAD), "the model is unpadded already"),
        ("bert-ts17-eager", (FUSE, QuantizeDynamic()), "activation ranges are found at run time"),
    ],
)
def test_what_it_cannot_do_exactly_it_leaves_and_tells(name, steps, reason):
    """The graph stays what it was."""
    model = prepared(name, CANONICAL, *steps)
    before = model.fingerprint()
    change = apply(UNPAD, model)
    assert not change
    assert reason in change.note
    assert model.fingerprint() == before


def pooled(how: str) -> Model:
    """bert-features with a pooling over its tokens in place of their states."""
    model = prepared("bert-features", CANONICAL)
    graph, build = model.graph, Builder(model.graph, "pool")
    (state,) = graph.outputs
    mask = next(tensor for tensor in graph.inputs if "mask" in tensor.name)
    real = build.node("Cast", "real", [mask], to=onnx.TensorProto.FLOAT)
    real = build.node("Unsqueeze", "real", [real, build.constant("axis", np.array([2]))])
    axis = build.constant("tokens", np.array([1]))
    if how == "mean":
        total = build.node("ReduceSum", "sum", [build.node("Mul", "kept", [state, real]), axis], keepdims=0)
        count = build.node("Clip", "count", [build.node("ReduceSum", "n", [real, axis], keepdims=0), np32(build, 1e-9)])
        result = build.node("Div", "mean", [total, count])
    elif how == "max":
        hidden = build.node("Mul", "low", [build.node("Sub", "gone", [real, np32(build, 1)]), np32(build, 1e6)])
        result = build.node("ReduceMax", "max", [build.node("Add", "kept", [state, hidden]), axis], keepdims=0)
    else:  # as many tokens as are real, padding in the sum
        total = build.node("ReduceSum", "sum", [state, axis], keepdims=0)
        result = build.node("Div", "mean", [total, build.node("ReduceSum", "n", [real, axis], keepdims=0)])
    result.name, result.dtype, result.shape = "pooled", np.float32, ["batch", model.encoder.hidden]
    graph.outputs = [result]
    model.changed()
    return model


def np32(build: Builder, value: float) -> gs.Constant:
    return build.constant("number", np.array(value, np.float32))


@pytest.mark.parametrize("how", ["mean", "max"])
def test_a_pooling_that_masks_padding_itself_answers_the_same(how):
    """Padding reaches no dense layer there, too."""
    model = pooled(how)
    apply(FUSE, model)
    assert apply(UNPAD, model)
    assert_same_outputs(model, pooled(how), [feeds(model, 3, 7, name) for name in ("ragged", "left", "holes")], 1e-5)
    down = values_of(model, [model.encoder.layers[-1].down.source], given := feeds(model, 3, 7))[0]
    assert len(down) == given["attention_mask"].sum()


def test_a_pooling_of_padding_is_refused():
    change = apply(UNPAD, pooled("of everything"))
    assert not change
    assert change.note.startswith("padding positions are read: ")


def test_dynamic_ranges_after_it_leave_padding_out():
    """Quantized second, every range is that of real tokens: what the padding holds changes nothing."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE, UNPAD, QuantizeDynamic())
    given, other = feeds(model), feeds(model)
    other["input_ids"] = np.where(given["attention_mask"], given["input_ids"], 3)
    first, second = answers(model, [given, other])
    np.testing.assert_array_equal(first["logits"], second["logits"])


def test_a_pytorch_1_10_distilbert_answers_the_same():
    path = shared_graph("optimum_tiny_bert_seqcls_pt110_opset11")
    model = prepared(path, CANONICAL, FUSE, FIRST, UNPAD)
    assert_same_outputs(model, Model.load(path), every_padding(model), atol=1e-5)


def test_two_masks_are_named():
    """Two texts, each through an encoder of its own, have padding in different places."""
    one = onnx.load(fixture("bert-ts17-sdpa"))
    both = Model.from_proto(onnx.compose.merge_models(*(onnx.compose.add_prefix(one, p) for p in "ab"), io_map=[]))
    CANONICAL.apply(both, Context())
    change = UNPAD.apply(both, Context())
    assert not change
    assert "hides keys by 'battention_mask', those before it by 'aattention_mask'" in change.note
