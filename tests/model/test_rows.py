"""Dense layers over rows that tokens were made of, as onnxsim writes them, become products over tokens."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import SOME, every_padding, prepared
from oracles import assert_same_outputs

from onnxslim_bert.graph.edit import Builder, sort_nodes
from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.linear import is_linear, read_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.rows import spell_rows
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.rewriting.contract import Context

CANONICAL = Canonicalize()


def flattened(model: Model, *, turned: bool) -> Model:
    """`model` with each dense layer a Gemm of rows, and the rows made tokens again; a view of a layer reads the rows.

    turned: with matrices [d_out, d_in], and sizes one by one, as GPT-2's Conv1D has them.
    """
    graph = model.graph
    for node in [node for node in graph.nodes if node.op == "MatMul" and is_linear(node)]:
        linear, tensors = read_linear(node), graph.tensors()
        source, result, build = tensors[linear.source], tensors[linear.result], Builder(graph, f"{node.name}/rows")
        bias = None if linear.bias is None else tensors[linear.bias]
        weight = tensors[linear.weight]
        if turned:
            weight = build.constant("turned", np.ascontiguousarray(weight.values.T))
        whole = build.node("Shape", "whole", [source])
        length = build.constant("shape", np.array([-1, linear.d_in]))
        if turned:
            ends = [build.constant(name, np.array([at])) for name, at in (("from", -1), ("to", 2**62))]
            rest = build.constant("rest", np.array([-1]))
            length = build.node("Concat", "length", [rest, build.node("Slice", "last", [whole, *ends])], axis=0)
        flat = build.node("Reshape", "flat", [source, length])
        rows = build.node("Gemm", "gemm", [flat, weight, *([bias] if bias is not None else [])], transB=int(turned))
        readers = list(result.outputs)
        if len(readers) == 1 and readers[0].op == "Reshape" and constant(readers[0].inputs[1]) is None:
            readers[0].inputs[0] = rows
            continue
        cut = [build.constant(name, np.array([at])) for name, at in (("from", 0), ("to", 2))]
        sizes = [build.node("Slice", "sizes", [whole, *cut])]
        if turned:
            axes = build.constant("axes", np.array([0]))
            places = [build.constant("place", np.array(i)) for i in (0, 1)]
            sizes = [build.node("Unsqueeze", "one", [build.node("Gather", "at", [whole, x]), axes]) for x in places]
        shape = build.node("Concat", "shape", [*sizes, build.constant("last", np.array([linear.d_out]))], axis=0)
        tokens = build.node("Reshape", "tokens", [rows, shape])
        for reader in readers:
            reader.inputs = [tokens if tensor is result else tensor for tensor in reader.inputs]
    sort_nodes(graph)
    model.changed()
    return model


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", SOME)
def test_an_encoder_of_rows_is_read_and_fused_as_one_of_tokens(name, turned):
    model, plain = prepared(name, CANONICAL), prepared(name, CANONICAL)
    wanted = flattened(model, turned=turned).clone()
    assert any(node.op == "Gemm" for node in model.graph.nodes)
    for step in (CANONICAL, Fuse()):
        step.apply(model, Context())
        step.apply(plain, Context())
    ops = [sorted(node.op for node in one.graph.nodes if node.op == "MultiHeadAttention") for one in (model, plain)]
    assert ops[0] == ops[1] != []
    for ours, theirs in zip(model.encoder.layers, plain.encoder.layers, strict=True):
        assert [(role, x.d_in, x.d_out) for role, x in ours.linears.items()] == [
            (role, x.d_in, x.d_out) for role, x in theirs.linears.items()
        ]
    assert_same_outputs(model, wanted, every_padding(model), atol=1e-5)


def gemm_of(source_axes: list[str | int], shape: list[int], d_in: int = 6) -> gs.Graph:
    """A Gemm of Reshape(x, shape), nothing known of the last axis of x."""
    x = gs.Variable("x", np.dtype(np.float32), source_axes)
    graph = gs.Graph(opset=17, inputs=[x])
    build = Builder(graph, "")
    flat = build.node("Reshape", "flat", [x, build.constant("shape", np.array(shape))])
    y = build.node("Gemm", "gemm", [flat, build.constant("weight", np.ones((d_in, 4), np.float32))])
    z = build.node("Relu", "relu", [y])
    z.dtype = np.dtype(np.float32)
    graph.outputs = [z]
    return graph


@pytest.mark.parametrize("shape", [[-1, 6], [3, 6]])
def test_rows_that_are_not_known_to_be_tokens_stay(shape):
    """Of [batch, heads, 3] for instance, whose two heads are one row."""
    graph = gemm_of(["batch", "seq", "width"], shape)
    assert spell_rows(graph) == 0
    assert [node.op for node in graph.nodes] == ["Reshape", "Gemm", "Relu"]


@pytest.mark.parametrize("rows", [-1, 8])
def test_tokens_whose_width_a_norm_tells_are_multiplied(rows):
    graph = gemm_of(["batch", "seq", 6], [rows, 6])
    build = Builder(graph, "")
    normed = build.node(
        "LayerNormalization", "norm", [graph.inputs[0], build.constant("gamma", np.ones(6, np.float32))]
    )
    graph.nodes[0].inputs[0] = normed
    sort_nodes(graph)
    assert spell_rows(graph) == 1
    product = next(node for node in graph.nodes if node.op == "MatMul")
    assert producer(product.inputs[0]).op == "LayerNormalization"


def test_rows_of_one_product_that_another_reads_are_tokens_too():
    graph = gemm_of(["batch", "seq", 6], [-1, 6])
    build = Builder(graph, "")
    normed = build.node(
        "LayerNormalization", "norm", [graph.inputs[0], build.constant("gamma", np.ones(6, np.float32))]
    )
    flat, gemm, relu = graph.nodes[:3]
    flat.inputs[0] = normed
    relu.inputs[0] = build.node(
        "Gemm", "second", [gemm.outputs[0], build.constant("weight", np.ones((4, 3), np.float32))]
    )
    sort_nodes(graph)
    assert spell_rows(graph) == 2
    assert not any(node.op == "Gemm" and node.inputs for node in graph.nodes)


def test_tokens_whose_width_a_reshape_tells_are_multiplied():
    """As rows of a fixed number of tokens are viewed between two products."""
    graph = gemm_of(["batch", 30], [-1, 6])
    build = Builder(graph, "")
    viewed = build.node("Reshape", "view", [graph.inputs[0], build.constant("sizes", np.array([-1, 5, 6]))])
    graph.nodes[0].inputs[0] = build.node("Sigmoid", "activation", [viewed])
    sort_nodes(graph)
    assert spell_rows(graph) == 1
    product = next(node for node in graph.nodes if node.op == "MatMul")
    assert producer(product.inputs[0]).op == "Sigmoid"
