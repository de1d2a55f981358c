"""Padding reaches no dense layer, and no answer changes."""

import numpy as np
import pytest
from graphs import EVERY, PADDINGS, SOME, apply, every_padding, feeds, fixture, prepared, reference, shared_graph
from oracles import answers, assert_layers, assert_same_outputs, values_of

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.unpad import Unpad

CANONICAL, FUSE, STANDARD = Canonicalize(), Fuse(), Fuse(style="standard")
FIRST, UNPAD = FirstToken(), Unpad()


@pytest.mark.parametrize("name", [*EVERY, "fused-attention", "fused-mha"])
def test_a_ragged_batch_answers_the_same(name):
    """With padding right, left, in holes, nowhere; with one row; and with random ids where the padding is."""
    model = prepared(name, CANONICAL, FUSE, UNPAD)
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", [*EVERY, "fused-attention", "fused-mha"])
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
        ("decoder-ts17", (FUSE,), "layer 0's attention is not proven: "),
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
