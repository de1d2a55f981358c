"""Norms in elementary operators: the same numbers at every opset, and left alone where more than that is read."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import SOME, apply, every_padding, fixture, prepared
from oracles import assert_same_outputs, optimized

from onnxslim_bert.graph.probe import opsets_of, run
from onnxslim_bert.model.norm_form import layer_norm
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.unfuse_norms import UnfuseNorms, emit_norm

CANONICAL, STANDARD, UNFUSE = Canonicalize(), Fuse(style="standard"), UnfuseNorms()


@pytest.mark.parametrize("name", SOME)
def test_the_answers_stay(name):
    model = prepared(name, CANONICAL, STANDARD, UNFUSE)
    assert "LayerNormalization" not in {node.op for node in model.graph.nodes}
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5, optimize=False)
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", ["bert-ts17-eager", "bert-dynamo18-eager", "bert-dynamo20-sdpa"])
def test_onnx_runtime_does_not_fuse_them_again(name):
    """It looks for Pow."""
    ops = {node.op_type for node in optimized(prepared(name, CANONICAL, STANDARD, UNFUSE)).node}
    assert not {op for op in ops if op.endswith("LayerNormalization")}


@pytest.mark.parametrize("opset", [17, 18, 20])
@pytest.mark.parametrize("has_beta", [True, False])
def test_one_norm_is_what_the_formula_gives(opset, has_beta):
    rng = np.random.default_rng(0)
    x, gamma, beta = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5, 7), 7, 7))
    source = gs.Variable("x", np.float32, x.shape)
    inputs = [source, gs.Constant("gamma", gamma)] + [gs.Constant("beta", beta)] * has_beta
    norm = gs.Node("LayerNormalization", "norm", {"axis": -1, "epsilon": 0.25}, inputs, [gs.Variable("y")])
    graph = gs.Graph([norm], [source], [], opset=opset)
    result = emit_norm(graph, norm)
    graph.nodes.remove(norm)
    graph.toposort()
    expected = layer_norm(x, gamma, beta if has_beta else np.zeros(7), 0.25)
    np.testing.assert_allclose(run(graph.nodes, {"x": x}, result, opsets_of(graph)), expected, atol=1e-6)


def test_a_norm_whose_mean_is_read_is_left():
    model = prepared("bert-ts17-eager", CANONICAL, STANDARD)
    norms = [node for node in model.graph.nodes if node.op == "LayerNormalization"]
    mean = gs.Variable("mean", np.float32, None)
    norms[0].outputs.append(mean)
    model.graph.nodes.append(gs.Node("Identity", "reader", inputs=[mean], outputs=[gs.Variable("m", np.float32)]))
    model.graph.outputs.append(model.graph.nodes[-1].outputs[0])
    model.changed()
    assert apply(UNFUSE, model).count == len(norms) - 1


def test_a_second_time_changes_nothing_and_says_so():
    model = prepared("bert-ts17-eager", CANONICAL, STANDARD, UNFUSE)
    before = model.fingerprint()
    change = apply(UNFUSE, model)
    assert (bool(change), change.note) == (False, "the graph has no LayerNormalization over its last axis")
    assert model.fingerprint() == before
