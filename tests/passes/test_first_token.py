"""The last layer computes one token, exactly, where only one is read, and is left alone where that is not proven."""

from collections import Counter

import numpy as np
import pytest
from graphs import DISTINCT, SOME, apply, every_padding, feeds, fixture, prepared, reference, shared_graph
from oracles import assert_layers, assert_same_outputs, values_of

from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_static import QuantizeStatic

CANONICAL, FUSE, STANDARD, FIRST = Canonicalize(), Fuse(), Fuse(style="standard"), FirstToken()


@pytest.mark.parametrize("name", [*DISTINCT, "bert-nomask", "bert-dynamo23-sdpa"])
def test_the_last_layer_for_one_token_answers_the_same(name):
    """On every padding, with holes and with position 0 itself hidden."""
    model = prepared(name, CANONICAL, FUSE, FIRST)
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("steps", [(CANONICAL,), (CANONICAL, STANDARD)], ids=["as exported", "standard"])
def test_other_forms_of_attention_answer_the_same(name, steps):
    model = prepared(name, *steps, FIRST)
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", SOME)
def test_all_but_key_and_value_see_one_token(name):
    """The layer is still found, with its roles, and says so; earlier layers keep all tokens."""
    model = prepared(name, CANONICAL, FUSE, FIRST)
    *earlier, last = model.encoder.layers
    assert [layer.first_token for layer in model.encoder.layers] == [False, False, True]
    given = feeds(model, 1, 7)
    lengths = [values.shape[1] for values in values_of(model, [x.result for x in last.linears.values()], given)]
    assert list(last.linears) == ["query", "key", "value", "output", "up", "down"]
    assert lengths == [1, 7, 7, 1, 1, 1]
    whole = values_of(model, [linear.result for layer in earlier for linear in layer.linears.values()], given)
    assert {values.shape[1] for values in whole} == {7}
    assert_layers(model, reference(name))


@pytest.mark.parametrize("form", ["contrib", "qdq"])
@pytest.mark.parametrize("name", SOME)
def test_an_int8_graph_answers_the_same(name, form):
    """Ranges are fixed, so that the order of first-token and quantize-static does not matter."""
    style = FUSE if form == "contrib" else STANDARD
    before = prepared(name, CANONICAL, style, QuantizeStatic(format=form))
    model = before.clone()
    assert apply(FIRST, model)
    assert_same_outputs(model, before, every_padding(model), atol=1e-5)


def test_dynamic_ranges_keep_the_layer_whole():
    """A range found over one token would be another."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE, QuantizeDynamic())
    before = model.fingerprint()
    change = apply(FIRST, model)
    assert not change
    assert "(DynamicQuantizeLinear)" in change.note
    assert model.fingerprint() == before


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bert-features", "the whole last hidden state is an output ('last_hidden_state')"),
        ("bert-features-pooled", "the whole last hidden state is an output ('last_hidden_state')"),
        ("bert-mlm", "is an output ('logits')"),
        ("decoder-ts17", "the last layer's attention is not proven: "),
    ],
)
def test_what_reads_more_than_position_0_is_left_and_told(name, reason):
    """The pass says why it does not apply, and the graph stays what it was."""
    model = prepared(name, CANONICAL, FUSE)
    before = model.fingerprint()
    change = apply(FIRST, model)
    assert not change
    assert reason in change.note
    assert model.fingerprint() == before


def test_a_layer_that_computes_one_token_already_is_left():
    model = prepared("bert-ts17-eager", CANONICAL, FUSE, FIRST)
    change = apply(FIRST, model)
    assert (bool(change), change.note) == (False, "the last layer computes one token already")


@pytest.mark.parametrize("position", [1, -1])
def test_another_position_is_not_taken_for_the_first(position):
    """A head that reads the second or the last token looks the same but for one number."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    selection = next(node for node in reversed(model.graph.nodes) if node.op == "Gather")
    selection.inputs[1] = Builder(model.graph, "other").constant("position", np.array(position))
    model.changed()
    change = apply(FIRST, model)
    assert not change
    assert "(Gather) reads the last hidden state beyond position 0" in change.note


def test_a_mean_over_tokens_is_not_taken_for_the_first():
    """Mean pooling, as sentence embedders have it."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    selection = next(node for node in reversed(model.graph.nodes) if node.op == "Gather")
    pooled = Builder(model.graph, "pool").node("ReduceMean", "mean", [selection.inputs[0]], axes=[1], keepdims=0)
    for node in list(selection.outputs[0].outputs):
        node.inputs[0] = pooled
    model.changed()
    change = apply(FIRST, model)
    assert not change
    assert "(ReduceMean) reads the last hidden state beyond position 0" in change.note


def test_a_second_reader_of_the_last_state_is_seen():
    """The pooler reads position 0, and something else reads all of it."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    selection = next(node for node in reversed(model.graph.nodes) if node.op == "Gather")
    largest = Builder(model.graph, "extra").node("ReduceMax", "largest", [selection.inputs[0]])
    model.graph.outputs.append(largest)
    largest.dtype = np.float32
    model.changed()
    assert not apply(FIRST, model)


def test_a_pytorch_1_10_distilbert_answers_the_same():
    path = shared_graph("optimum_tiny_bert_seqcls_pt110_opset11")
    model = prepared(path, CANONICAL, FUSE, FIRST)
    assert model.encoder.layers[-1].first_token
    assert_same_outputs(model, Model.load(path), every_padding(model), atol=1e-5)


def test_no_node_is_computed_for_all_tokens_and_then_for_one():
    """The work left behind is gone: as many dense layers as before."""
    before = Counter(node.op for node in prepared("bert-ts17-eager", CANONICAL, FUSE).graph.nodes)
    after = Counter(node.op for node in prepared("bert-ts17-eager", CANONICAL, FUSE, FIRST).graph.nodes)
    for op in ("MatMul", "Gemm", "Gelu", "LayerNormalization", "MultiHeadAttention", "Sum"):
        assert after[op] == before[op], op
