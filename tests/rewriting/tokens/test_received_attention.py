"""Received attention in a graph is the formula, for ragged texts."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import opsets_of, run
from onnxslim_bert.rewriting.tokens.received_attention import emit_received_attention

HEADS, HEAD_DIM, SCALE = 3, 5, 0.4


def received(query: Array, key: Array, value: Array, mask: Array) -> Array:
    """What the emitted nodes give, [batch, seq]."""
    names = ("query", "key", "value", "mask")
    inputs = [gs.Variable(name, dtype=x.dtype) for name, x in zip(names, (query, key, value, mask), strict=True)]
    graph = gs.Graph(inputs=inputs, opset=17)
    build = Builder(graph, "test")
    result = emit_received_attention(build, inputs[:3], HEADS * HEAD_DIM, HEADS, SCALE, inputs[3])
    feeds: dict[str, Array] = dict(zip(names, (query, key, value, mask), strict=True))
    return run(graph.nodes, feeds, result, opsets_of(graph))


def roles(batch: int, seq: int) -> Array:
    return np.random.default_rng(seq).standard_normal((3, batch, seq, HEADS * HEAD_DIM)).astype(np.float32)


@pytest.mark.parametrize("length", [1, 4, 7])
def test_it_is_attention_of_the_mean_query_times_the_norm_of_the_value(length):
    query, key, value = roles(2, 7)
    mask = np.stack([np.ones(7, np.int64), (np.arange(7) < length).astype(np.int64)])
    actual = received(query, key, value, mask)
    for row, real in enumerate((7, length)):
        expected = np.zeros(real)
        for head in np.split(np.arange(HEADS * HEAD_DIM), HEADS):
            scores = SCALE * key[row, :real, head].T @ query[row, :real, head].T.mean(0)
            weights = np.exp(scores) / np.exp(scores).sum()
            expected += weights * np.linalg.norm(value[row, :real, head].T, axis=1)
        np.testing.assert_allclose(actual[row, :real], expected, rtol=1e-5)
        assert (actual[row, real:] == 0).all()


def test_a_token_that_gives_nothing_receives_nothing():
    """However much it is looked at."""
    query, key, value = roles(1, 5)
    key[0, 2] = 10 * query[0].mean(0)
    value[0, 2] = 0
    assert received(query, key, value, np.ones((1, 5), np.int64)).argmin() == 2
