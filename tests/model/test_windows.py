"""Attention in a window is computed block by block in long rows, and gives what it gave."""

from collections import Counter

import numpy as np
import pytest
from graphs import feeds, prepared, shared_graph
from oracles import answers, values_of

from onnxslim_bert.graph.probe import producer
from onnxslim_bert.model.attention_region import attention_region
from onnxslim_bert.model.head_cuts import HeadSlices
from onnxslim_bert.model.head_slices import head_slices
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.windows import LOWEST, SHORT, SMALLEST, reach_of
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse

MODERNBERT = "families/modernbert-feat-dyn20-sdpa/model"  # a window of 4 tokens to each side in two of three layers


def fused() -> Model:
    return prepared(shared_graph(MODERNBERT), Canonicalize(), Fuse())


@pytest.mark.parametrize(
    ("seen", "reach"),
    [(lambda d: d <= 3, 3), (lambda d: d == 0, 0), (lambda d: d <= 6, None), (lambda d: d >= 0, None)],
    ids=["three", "itself", "more than a quarter", "all"],
)
def test_the_reach_of_scores(seen, reach):
    """What is added is 0 where tokens see each other; -inf and the lowest number hide alike, -1e9 does not."""
    distance = np.abs(np.arange(20)[:, None] - np.arange(20))
    for hidden in (-np.inf, LOWEST):
        assert reach_of(np.where(seen(distance), 0, hidden)[None, None]) == reach
    assert reach_of(np.where(seen(distance), 0, -1e9)[None, None]) is None


@pytest.mark.parametrize("length", [1, 5, SHORT * SMALLEST, SHORT * SMALLEST + 1, 300, 384, 500])
@pytest.mark.parametrize("padding", ["none", "ragged", "left"])
def test_answers_stay_at_every_length_and_padding(length, padding):
    """Padding far from any token, which sees none, included; and rows that are no whole number of blocks."""
    source, model = Model.load(shared_graph(MODERNBERT)), fused()
    given = feeds(model, 2, length)
    places = np.arange(length)
    short = {"none": places >= 0, "ragged": places < -(-length // 3), "left": places >= length // 2}[padding]
    given["attention_mask"] = np.stack([short, places >= 0]).astype(given["attention_mask"].dtype)
    (ours,), (theirs,) = answers(model, [given]), answers(source, [given])
    np.testing.assert_allclose(ours["last_hidden_state"], theirs["last_hidden_state"], atol=2e-5)


def test_long_rows_are_computed_in_blocks_and_short_ones_whole():
    model = fused()
    nodes = [node for node in model.graph.nodes if node.op == "MultiHeadAttention"]
    assert len(nodes) == 3
    blocked = [node.inputs[0].name for node in nodes if producer(node.inputs[0]).op == "Reshape"]
    for length, blocks, size in ((7, 1, 7), (300, 5, SMALLEST)):
        shapes = {x.shape[:2] for x in values_of(model, blocked, feeds(model, 2, length))}
        assert shapes == {(2 * blocks, size)}
    assert Counter(node.op for node in model.graph.nodes)["Softmax"] == 0


def test_heads_of_blocks_are_told_apart():
    model = fused()
    for layer in model.encoder.layers:
        assert isinstance(head_slices(attention_region(model.graph, layer), layer.groups), HeadSlices)
