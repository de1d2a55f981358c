"""Attention without its mask where nothing is padded, and with it elsewhere: the answers do not change."""

from collections import Counter

import pytest
from graphs import EVERY, SOME, apply, every_padding, fixture, prepared, reference
from oracles import assert_layers, assert_same_outputs

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.unpad import Unpad

CANONICAL, FUSE, SKIP = Canonicalize(), Fuse(), SkipMask()


@pytest.mark.parametrize("name", [*EVERY[::3], "fused-attention", "fused-mha"])
def test_padded_or_not_the_answers_are_the_same(name):
    model = prepared(name, CANONICAL, FUSE, SKIP)
    assert Counter(node.op for node in model.graph.nodes)["If"] == 3
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", SOME)
def test_after_all_other_passes_the_answers_are_the_same(name):
    steps = (CANONICAL, FUSE, FirstToken(), Unpad(), QuantizeStatic())
    before, model = prepared(name, *steps), prepared(name, *steps, SKIP)
    assert_same_outputs(model, before, every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", SOME)
def test_canonicalize_brings_the_mask_back(name):
    """So that a file made with it can be read, and written again without it."""
    model = prepared(name, CANONICAL, FUSE, SKIP, CANONICAL)
    assert_layers(model, reference(name))
    assert model.encoder.mask == "attention_mask"
    assert "If" not in Counter(node.op for node in model.graph.nodes)
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("bert-ts17-eager", (CANONICAL,)),
        ("bert-nomask", (CANONICAL, FUSE)),
        ("bert-ts17-eager", (CANONICAL, FUSE, SKIP)),
    ],
    ids=["not fused", "no mask", "a second time"],
)
def test_where_no_mask_is_read_nothing_changes_and_that_is_said(name, steps):
    model = prepared(name, *steps)
    before = model.fingerprint()
    change = apply(SKIP, model)
    assert not change
    assert "no MultiHeadAttention reads" in change.note
    assert model.fingerprint() == before
