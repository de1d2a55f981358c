"""Heads are told apart in attention of any form, and where they are not, that is said."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import prepared, shared_graph
from random_encoders import HEADS, SIZE, Kind, encoder

from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.attention_region import attention_region
from onnxslim_bert.model.head_cuts import HeadAxis, HeadSlices
from onnxslim_bert.model.head_slices import head_slices
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.rewriting.contract import Context

FAMILIES = {  # as others exported them, with what their attention has and a plain one has not
    "mpnet-feat-dyn20-eager": "relative buckets",
    "debertav3-feat-dyn18-eager": "positions that depend on query and key",
    "modernbert-feat-dyn20-sdpa": "rotary positions and windows",
    "gqaplain-feat-ts17-eager": "heads that share keys",
    "torchte-feat-dyn20-sdpa": "rows and heads in one axis",
}
PLAIN = Kind("table", 0, "none", False, HEADS, "layer", False, "none", "none", "input", 0, "states")


@pytest.mark.parametrize(
    ("axis", "units", "kept", "expected"),
    [
        (HeadAxis(0, 1, 3), 3, [0, 2], [0, 2]),
        (HeadAxis(2, 2, 6), 3, [1], [2, 3]),
        (HeadAxis(0, 1, 6), 3, [1], [1, 4]),  # two rows of three heads
        (HeadAxis(0, 2, 8), 2, [0], [0, 1, 4, 5]),
    ],
)
def test_places_of_units(axis, units, kept, expected):
    assert axis.places(units, np.array(kept)).tolist() == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_many_kinds_have_heads_that_can_go(name):
    model = prepared(shared_graph(f"families/{name}/model"), Canonicalize())
    layer = model.encoder.layers[0]
    assert layer.form is None
    found = head_slices(attention_region(model.graph, layer), layer.groups)
    assert isinstance(found, HeadSlices), found


def test_heads_that_meet_are_not_told_apart():
    """A softmax over heads instead of keys; a norm over all channels of the query."""
    for spoil in (_softmax_over_heads, _norm_of_all_heads):
        model = encoder(PLAIN)
        Canonicalize().apply(model, Context())
        spoil(model)
        layer = model.encoder.layers[0]
        found = head_slices(attention_region(model.graph, layer), layer.groups)
        assert isinstance(found, str)
        assert "heads meet at node" in found


def test_a_tensor_without_elements_has_the_heads_of_what_it_comes_from():
    """Channels behind those that rotary positions turn, where they turn all (Phi-3)."""
    model = encoder(PLAIN)
    Canonicalize().apply(model, Context())
    scores = next(n for n in model.graph.nodes if n.op == "MatMul" and not isinstance(n.inputs[1], gs.Constant))
    query, build = scores.inputs[0], Builder(model.graph, "rest")
    bounds = [
        build.constant(name, np.array([place])) for name, place in (("from", SIZE), ("to", 2 * SIZE), ("axis", 3))
    ]
    rest = build.node("Slice", "rest", [query, *bounds])
    scores.inputs[0] = build.node("Concat", "whole", [query, rest], axis=3)
    model.graph.toposort()
    model.changed()
    layer = model.encoder.layers[0]
    assert isinstance(head_slices(attention_region(model.graph, layer), layer.groups), HeadSlices)


def _softmax_over_heads(model: Model) -> None:
    next(node for node in model.graph.nodes if node.op == "Softmax").attrs["axis"] = 1
    model.changed()


def _norm_of_all_heads(model: Model) -> None:
    layer = model.encoder.layers[0]
    query = model.graph.tensors()[layer.query.result]
    readers = list(query.outputs)
    build = Builder(model.graph, "norm")
    gamma = build.constant("gamma", np.ones(layer.query.d_out, np.float32))
    normed = build.node("LayerNormalization", "normed", [query, gamma], axis=-1)
    for node in readers:
        node.inputs = [normed if tensor is query else tensor for tensor in node.inputs]
    model.changed()
