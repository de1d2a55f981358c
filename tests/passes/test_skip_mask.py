"""Attention without its mask where nothing is padded, and with it elsewhere: the answers do not change."""

from collections import Counter

import numpy as np
import pytest
from graphs import EVERY, SOME, apply, every_padding, feeds, fixture, prepared, reference, shared_graph
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
ATTENTION = {"contrib": "MultiHeadAttention", "onnx": "Attention"}
WINDOW = "families/modernbert-feat-dyn20-sdpa/model"  # a window of 4 tokens to each side in two of three layers
RELATIVE = "families/mpnet-feat-dyn20-eager/model"


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
    """The last window of AveragePool is another one from opset 19 on."""
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    build = Builder(model.graph, "pool")
    build.node("AveragePool", "mean", [model.graph.outputs[0]], kernel_shape=[1])
    with pytest.raises(PassError, match=r"attention=onnx needs opset 23, and node '.*mean.*' \(AveragePool\) may mean"):
        apply(NEWEST, model)
    with pytest.raises(PassError, match="attention='torch' is not one of contrib, onnx"):
        SkipMask(attention="torch")


@pytest.mark.parametrize("skip", [SKIP, NEWEST], ids=["contrib", "onnx"])
@pytest.mark.parametrize("length", [1, 7, 130, 200, 300])
def test_a_row_of_one_block_is_not_cut(skip, length):
    """Where a window is written in blocks, which start at 193 tokens here; padding that sees no token included."""
    model = prepared(shared_graph(WINDOW), CANONICAL, FUSE, skip)
    choices = [node for node in model.graph.nodes if node.op == "If"]
    assert [node.attrs["then_branch"].nodes[-1].op for node in choices] == [ATTENTION[skip.attention]] * 2
    assert not {"Slice", "ReduceMean"} & {node.op for node in model.graph.nodes if "context" in node.name}
    source = Model.load(shared_graph(WINDOW))
    assert_same_outputs(model, source, [padded(source, length, left=left) for left in (False, True)], atol=1e-5)


@pytest.mark.parametrize("skip", [SKIP, NEWEST], ids=["contrib", "onnx"])
def test_canonicalize_brings_the_blocks_back(skip):
    blocks, model = (prepared(shared_graph(WINDOW), CANONICAL, FUSE, *steps, CANONICAL) for steps in ((), (skip,)))
    assert [layer.heads for layer in model.encoder.layers] == [layer.heads for layer in blocks.encoder.layers]
    assert "If" not in Counter(node.op for node in model.graph.nodes)
    assert_same_outputs(model, blocks, [padded(blocks, 300)], atol=1e-6)


@pytest.mark.parametrize("length", [1, 7, 64])
def test_what_is_added_to_scores_is_added_by_the_operator_of_onnx(length):
    model = prepared(shared_graph(RELATIVE), CANONICAL, FUSE, NEWEST)
    written = Counter(node.op for node in model.graph.nodes)
    assert written["Attention"] == len(model.encoder.layers)
    assert written["MultiHeadAttention"] == 0
    source = Model.load(shared_graph(RELATIVE))
    assert_same_outputs(model, source, [padded(source, length, left=left) for left in (False, True)], atol=1e-5)


def padded(model, length, *, left=False):
    """Feeds of a row with a third of its tokens, at the left or the right, and of one with all."""
    given = feeds(model, 2, length)
    places, kept = np.arange(length), -(-length // 3)
    short = places >= length - kept if left else places < kept
    given["attention_mask"] = np.stack([short, places >= 0]).astype(given["attention_mask"].dtype)
    return given
