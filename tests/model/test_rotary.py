"""Rotary positions become one node for query and one for key, where they are what they seem."""

from collections import Counter

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from graphs import feeds, prepared, shared_graph
from oracles import answers, assert_same_outputs
from random_encoders import HEADS, POSITIONS, SIZE, VOCABULARY, Kind, encoder

from onnxslim_bert.graph.edit import Builder, sort_nodes
from onnxslim_bert.model.attention_region import attention_region
from onnxslim_bert.model.head_cuts import HeadSlices
from onnxslim_bert.model.head_slices import head_slices
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.rotary import turned_by
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.rewriting.contract import Context

ROTARY = Kind("none", 0, "none", True, HEADS, "layer", False, "none", "none", "input", 0, "states")


def fused(model: Model) -> Counter[str]:
    """The operators after canonicalize and fuse, which are applied to `model`."""
    for step in (Canonicalize(), Fuse()):
        step.apply(model, Context())
    return Counter(node.op for node in model.graph.nodes)


def given(length: int) -> dict[str, np.ndarray]:
    rng, places = np.random.default_rng(length), np.arange(length)
    mask = np.stack([places < length, places < max(1, length // 2)]).astype(np.int64)
    return {"input_ids": rng.integers(2, VOCABULARY, mask.shape), "attention_mask": mask}


@pytest.mark.parametrize("mask", ["input", "none"])
def test_rotary_attention_is_two_rotations_and_one_node(mask):
    """The angles have a row for each position, at every length; layers share them."""
    kind = Kind(**{**vars(ROTARY), "mask": mask})
    model = encoder(kind)
    operators = fused(model)
    assert (operators["RotaryEmbedding"], operators["MultiHeadAttention"]) == (4, 2)
    assert "Softmax" not in operators
    assert len({id(t) for n in model.graph.nodes if n.op == "RotaryEmbedding" for t in n.inputs[2:]}) == 2
    rows = [given(length) for length in (1, 2, 7, 33, POSITIONS)]
    rows = [{name: feed[name] for name in (t.name for t in model.graph.inputs)} for feed in rows]
    assert_same_outputs(model, encoder(kind), rows, atol=1e-5)


def is_mixed(node: gs.Node) -> bool:
    """Whether a Reshape joins the heads of a product."""
    back = node.inputs[0].inputs
    return bool(back) and back[0].op == "Transpose" and back[0].inputs[0].inputs[0].op == "MatMul"


def as_a_script_writes(model: Model) -> None:
    """Casts to the type that is there already, and a context whose shape is that of what was turned (ESM)."""
    build = Builder(model.graph, "script")
    kept = [reader for node in model.graph.nodes if node.op == "Cos" for reader in node.outputs[0].outputs]
    turned = [reader.outputs[0] for product in kept for reader in product.outputs[0].outputs]
    mixed = [node for node in model.graph.nodes if node.op == "Reshape" and is_mixed(node)]
    for query, node in zip(turned[::2], mixed, strict=True):
        shape, width = build.node("Shape", "shape", [query]), build.constant("width", np.array([HEADS * SIZE]))
        sizes = build.node("Gather", "sizes", [shape, build.constant("of", np.array([0, 2]))])
        node.inputs[1] = build.node("Concat", "joined", [sizes, width], axis=0)
    for tensor in turned:
        readers = list(tensor.outputs)
        same = build.node("Cast", "same", [tensor], to=onnx.TensorProto.FLOAT)
        for reader in readers:
            reader.inputs[next(place for place, read in enumerate(reader.inputs) if read is tensor)] = same
    sort_nodes(model.graph)
    model.changed()


def test_rotary_attention_of_a_script_is_read_too():
    """What leads to a shape alone is no part of what is computed."""
    model = encoder(ROTARY)
    as_a_script_writes(model)
    plain = model.clone()
    operators = fused(model)
    assert (operators["RotaryEmbedding"], operators["MultiHeadAttention"], operators["Softmax"]) == (4, 2, 0)
    assert_same_outputs(model, plain, [given(length) for length in (1, 2, 7, 33, POSITIONS)], atol=1e-5)


@pytest.mark.parametrize("spoiled", ["other half", "sign", "order", "each head"])
def test_what_turns_otherwise_keeps_its_nodes(spoiled):
    """Halves with angles of their own, a turn back, halves swapped, angles of each head's own."""
    model, rng = encoder(ROTARY), np.random.default_rng(0)
    for node in list(model.graph.nodes):
        if node.op == "Mul" and node.outputs[0].outputs and node.outputs[0].outputs[0].op in ("Cos", "Sin"):
            rates = node.inputs[1]
            if spoiled == "other half":
                rates.values = rates.values * np.linspace(1, 2, SIZE, dtype=np.float32)
            elif spoiled == "each head":
                rates.values = rng.random((HEADS, 1, SIZE)).astype(np.float32)
        elif node.op == "Concat" and (node.inputs[0].inputs or [node])[0].op == "Neg":
            if spoiled == "sign":
                node.inputs[0].inputs[0].op = "Abs"
            elif spoiled == "order":
                node.inputs.reverse()
    model.changed()
    before = model.clone()
    operators = fused(model)
    assert operators["RotaryEmbedding"] == operators["MultiHeadAttention"] == 0
    assert_same_outputs(model, before, [given(9)], atol=1e-5)


def test_the_formula_of_a_turn():
    """A quarter turn takes the first channel to the second, and that to minus the first; other angles are no rotary."""
    values = np.array([[[1.0, 2.0, 3.0, 4.0]]])  # one token, two heads of two channels
    cos, sin = np.zeros((1, 2)), np.ones((1, 2))
    assert turned_by(values, cos, sin, 2).tolist() == [[[-2.0, 1.0, -4.0, 3.0]]]
    assert turned_by(values, cos, np.array([[1.0, 0.5]]), 2) is None
    assert turned_by(values, np.zeros((2, 2)), sin, 2) is None


@pytest.mark.parametrize("name", ["nomic-feat-dyn20-sdpa", "modernbert-feat-dyn20-sdpa"])
def test_exported_families_answer_alike_where_tokens_see_none(name):
    """Rows of 30 tokens in a window of 8: padding far from any token sees no key and gives zeros."""
    path = shared_graph(f"families/{name}/model")
    model, source = prepared(path, Canonicalize(), Fuse()), Model.load(path)
    assert Counter(node.op for node in model.graph.nodes)["RotaryEmbedding"] == 6
    rows = [feeds(model), feeds(model, 1, 1), feeds(model, 3, 30), feeds(model, 2, 100)]
    assert_same_outputs(model, source, rows, atol=1e-5)
    assert all(np.isfinite(found["last_hidden_state"]).all() for found in answers(model, rows))


def test_heads_behind_rotary_nodes_are_told_apart():
    model = prepared(shared_graph("families/modernbert-feat-dyn20-sdpa/model"), Canonicalize(), Fuse())
    layer = model.encoder.layers[0]
    assert isinstance(head_slices(attention_region(model.graph, layer), layer.groups), HeadSlices)
