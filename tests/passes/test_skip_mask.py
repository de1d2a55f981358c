"""Attention without its mask where nothing is padded, and with it elsewhere: the answers do not change."""

from collections import Counter

import pytest
from graphs import EVERY, SOME, apply, every_padding, fixture, prepared, reference
from oracles import assert_layers, assert_same_outputs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.unpad import Unpad

CANONICAL, FUSE, SKIP, NEWEST = Canonicalize(), Fuse(), SkipMask(), SkipMask(attention="onnx")


@pytest.mark.parametrize("skip", [SKIP, NEWEST], ids=["contrib", "onnx"])
@pytest.mark.parametrize("name", [*EVERY[::3], "fused-attention", "fused-mha"])
def test_padded_or_not_the_answers_are_the_same(name, skip):
    model = prepared(name, CANONICAL, FUSE, skip)
    assert Counter(node.op for node in model.graph.nodes)["If"] == 3
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("skip", [SKIP, NEWEST], ids=["contrib", "onnx"])
@pytest.mark.parametrize("name", SOME)
def test_after_all_other_passes_the_answers_are_the_same(name, skip):
    steps = (CANONICAL, FUSE, FirstToken(), Unpad(), QuantizeStatic())
    before, model = prepared(name, *steps), prepared(name, *steps, skip)
    assert_same_outputs(model, before, every_padding(model), atol=1e-5)


@pytest.mark.parametrize("skip", [SKIP, NEWEST], ids=["contrib", "onnx"])
@pytest.mark.parametrize("name", SOME)
def test_canonicalize_brings_the_mask_back(name, skip):
    """So that a file made with it can be read, and written again without it."""
    model = prepared(name, CANONICAL, FUSE, skip, CANONICAL)
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


def test_the_operator_of_onnx_is_written_where_the_opset_has_it():
    """The graph says so, and every branch has it."""
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE, NEWEST)
    branches = [graph for node in model.graph.nodes if node.op == "If" for graph in node.attrs.values()]
    assert [branch.nodes[-1].op for branch in branches] == ["Attention"] * 6
    assert model.proto().opset_import[0].version == 23


def test_an_operator_that_changed_with_the_opset_refuses_it():
    """Axes that were an attribute are an input at opset 23."""
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    build = Builder(model.graph, "sum")
    build.node("ReduceMax", "largest", [model.graph.outputs[0]], axes=[1])
    with pytest.raises(
        PassError, match=r"attention=onnx needs opset 23, and node '.*largest.*' \(ReduceMax\) may mean"
    ):
        apply(NEWEST, model)
    with pytest.raises(PassError, match="attention='torch' is not one of contrib, onnx"):
        SkipMask(attention="torch")
