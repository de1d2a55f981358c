"""The mask as one looked-up bias: the same answers from any exporter, no casts or guards, padding never seen."""

from collections import Counter

import numpy as np
import pytest
from graphs import EVERY, SOME, apply, every_padding, feeds, fixture, prepared
from oracles import answers, assert_same_outputs
from random_encoders import HEADS, Kind, encoder

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.drop_tokens import DropTokens
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.mask_bias import MaskBias
from onnxslim_bert.rewriting.contract import Context

CANONICAL, STANDARD, FIRST, MASK = Canonicalize(), Fuse(style="standard"), FirstToken(), MaskBias()
BERT = [name for name in EVERY if name.startswith("bert")]  # every way in which an exporter writes a mask
ONLY_FOR_MASKS = {"Where", "IsNaN", "Equal", "And", "Not", "GatherND", "Cast", "Expand"}


@pytest.mark.parametrize("name", [*BERT, *SOME[1:], "bert-dynamo23-sdpa", "bert-features", "bert-mlm", "fused-mha"])
def test_the_answers_stay_with_every_padding(name):
    """As exported, with dynamic shapes."""
    model = prepared(name, CANONICAL, MASK)
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", SOME)
def test_fixed_and_standard_answer_the_same(name):
    model = prepared(name, CANONICAL, STANDARD, FIRST, FixShapes(2, 7), MASK)
    given = [feeds(model, 2, 7, padding) for padding in ("ragged", "left", "holes")]
    assert_same_outputs(model, Model.load(fixture(name)), given, atol=1e-5)


@pytest.mark.parametrize("name", BERT)
def test_one_lookup_for_all_layers_and_nothing_else_reads_the_mask(name):
    model = prepared(name, CANONICAL, FixShapes(1, 5), MASK)
    assert not ONLY_FOR_MASKS & {node.op for node in model.graph.nodes}
    mask = next(tensor for tensor in model.graph.inputs if tensor.name == "attention_mask")
    (lookup,) = mask.outputs
    assert lookup.op == "Gather"
    np.testing.assert_array_equal(constant(lookup.inputs[0]), [-10000, 0])
    (bias,) = lookup.outputs[0].outputs
    assert [node.op for node in bias.outputs[0].outputs] == ["Add"] * len(model.encoder.layers)


@pytest.mark.parametrize("name", SOME)
def test_padding_is_never_seen(name):
    """Other ids at padding change nothing, bit for bit."""
    model = prepared(name, CANONICAL, STANDARD, FIRST, MASK)
    given = feeds(model, 3, 7)
    changed = dict(given, input_ids=np.where(given["attention_mask"], given["input_ids"], 5))
    before, after = answers(model, [given, changed])
    for output, values in before.items():
        np.testing.assert_array_equal(after[output], values)


def test_a_smaller_value_hides_as_well():
    """exp(-30) is 1e-13."""
    model = prepared("bert-dynamo20-sdpa", CANONICAL, MaskBias(value=-30))
    assert_same_outputs(model, Model.load(fixture("bert-dynamo20-sdpa")), every_padding(model), atol=1e-5)


def test_another_value_replaces_the_first():
    model = prepared("bert-ts17-eager", CANONICAL, MASK)
    assert apply(MaskBias(value=-50), model)
    (lookup,) = [node for node in model.graph.nodes if node.op == "Gather" and "mask" in node.inputs[1].name]
    np.testing.assert_array_equal(constant(lookup.inputs[0]), [-50, 0])


def test_a_part_of_the_mask_is_looked_up_too():
    """Where earlier layers dropped tokens, later ones read the mask of those that were kept."""
    steps = (CANONICAL, STANDARD, FIRST, DropTokens(after=0, at_least=2))
    before, model = prepared("bert-ts17-eager", *steps), prepared("bert-ts17-eager", *steps, MASK)
    assert_same_outputs(model, before, every_padding(model), atol=1e-5)


PLAIN = Kind("none", 0, "none", False, HEADS, "layer", False, "none", "none", "input", 0, "states")


@pytest.mark.parametrize("changed", [{"bias": "alibi"}, {"bias": "table"}, {"rotary": True}, {"groups": 2}], ids=str)
def test_attention_that_is_not_proven_looks_the_mask_up_too(changed):
    """In a graph of fixed shapes: what is added to scores is a constant for keys, and a lookup for padding. Once."""
    kind = Kind(**(vars(PLAIN) | changed))
    model = encoder(kind)
    for step in (CANONICAL, STANDARD, FixShapes(2, 9), MASK):
        apply(step, model)
    assert {layer.form for layer in model.encoder.layers} == {None}
    assert not ONLY_FOR_MASKS - {"Expand"} & {node.op for node in model.graph.nodes}
    given = [feeds(model, 2, 9, padding) for padding in ("ragged", "left", "holes")]
    assert_same_outputs(model, encoder(kind), given, atol=1e-5)
    assert not apply(MASK, model)


@pytest.mark.parametrize("size", [2, 30])
def test_a_window_that_hides_tokens_keeps_its_mask(size):
    """A token whose window holds padding alone sees nothing, and the two forms answer otherwise there."""
    model = encoder(Kind(**(vars(PLAIN) | {"window": size})))
    for step in (CANONICAL, STANDARD, FixShapes(1, 9)):
        apply(step, model)
    assert bool(apply(MASK, model)) == (size > 9)


def test_plain_attention_keeps_its_nodes():
    """In the standard form only the bias changes."""
    before = Counter(node.op for node in prepared("bert-ts17-eager", CANONICAL, STANDARD).graph.nodes)
    after = Counter(node.op for node in prepared("bert-ts17-eager", CANONICAL, STANDARD, MASK).graph.nodes)
    assert after - before == {"Gather": 1}
    assert before - after == {"Cast": 1, "Sub": 1, "Mul": 1}


@pytest.mark.parametrize(
    ("name", "steps", "note"),
    [
        ("bert-ts17-eager", (CANONICAL, MASK), "every layer's mask is looked up already"),
        ("bert-nomask", (CANONICAL,), "no layer is proven to read a mask"),
        ("decoder-ts17", (CANONICAL,), "no layer is proven to read a mask; left as it is: attention of layer 0: "),
    ],
)
def test_nothing_to_do_changes_nothing_and_says_so(name, steps, note):
    model = prepared(name, *steps)
    before = model.fingerprint()
    change = apply(MASK, model)
    assert not change
    assert change.note.startswith(note)
    assert model.fingerprint() == before


def test_a_mask_of_floats_is_refused():
    model = prepared("bert-ts17-eager", CANONICAL)
    next(tensor for tensor in model.graph.inputs if "mask" in tensor.name).dtype = np.float32
    with pytest.raises(PassError, match=r"^mask-bias: mask 'attention_mask' is float32; int32 or int64 was needed$"):
        MASK.apply(model, Context())


def test_a_value_that_hides_nothing_is_refused():
    with pytest.raises(PassError, match=r"^mask-bias: value=0; a value below 0 was needed to hide a key$"):
        MaskBias(value=0)
