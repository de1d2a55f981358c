"""Dense layers in two dimensions: the same answers, hardly a Reshape more, and shared matrices stay shared."""

from collections import Counter

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import SOME, apply, feeds, fixture, prepared
from oracles import assert_same_outputs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.dense_2d import Dense2d, join_reshapes
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.unfuse_norms import UnfuseNorms
from onnxslim_bert.rewriting.contract import Context

CANONICAL, STANDARD, FIRST, FIX, FLAT = Canonicalize(), Fuse(style="standard"), FirstToken(), FixShapes(2, 7), Dense2d()


@pytest.mark.parametrize(
    "steps",
    [(), (STANDARD,), (STANDARD, FIRST), (STANDARD, FIRST, UnfuseNorms())],
    ids=["as exported", "standard", "first token", "unfused norms"],
)
@pytest.mark.parametrize("name", [*SOME, "bert-mlm", "bert-features-pooled", "prenorm-ts13-eager"])
def test_the_answers_stay_and_every_dense_layer_is_flat(name, steps):
    model = prepared(name, CANONICAL, *steps, FIX, FLAT)
    given = [feeds(model, 2, 7, padding) for padding in ("ragged", "holes")]
    assert_same_outputs(model, Model.load(fixture(name)), given, atol=1e-5)
    products = [node for node in model.graph.nodes if node.op == "MatMul"]
    assert not any(constant(node.inputs[1]) is not None for node in products)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", SOME)
def test_few_reshapes_are_added_whatever_the_number_of_layers(name, batch):
    """Behind the embeddings, and where the first token is cut out; both twice where norms come first."""
    steps = (CANONICAL, STANDARD, FIRST, FixShapes(batch, 7))
    views = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
    before = sum(node.op in views for node in prepared(name, *steps).graph.nodes)
    model = prepared(name, *steps, FLAT)
    added = sum(node.op in views for node in model.graph.nodes) - before
    assert added <= (5 if name.startswith("prenorm") else 2)


def test_norms_and_sums_between_dense_layers_are_flat():
    model = prepared("bert-ts17-eager", CANONICAL, STANDARD, FIX)
    apply(FLAT, model)
    ranks = Counter((node.op, len(node.outputs[0].shape)) for node in model.graph.nodes)
    assert ranks["LayerNormalization", 2] == 6
    assert ranks["LayerNormalization", 3] == 1  # that of the embeddings


def test_shared_matrices_stay_shared():
    """ALBERT has one layer that it runs three times."""
    model = prepared("albert-ts17-eager", CANONICAL, STANDARD, FIX, FLAT)
    gemms = [node for node in model.graph.nodes if node.op == "Gemm"]
    assert len({node.inputs[1].name for node in gemms}) < len(gemms) / 2
    assert model.encoder.layers[0].query.weight == model.encoder.layers[2].query.weight


def test_open_shapes_are_refused():
    with pytest.raises(PassError, match=r"^dense-2d: inputs have no fixed shape; run fix-shapes before$"):
        FLAT.apply(prepared("bert-ts17-eager", CANONICAL), Context())


def test_a_second_time_changes_nothing_and_says_so():
    model = prepared("bert-ts17-eager", CANONICAL, STANDARD, FIX, FLAT)
    apply(FIX, model)
    before = model.fingerprint()
    change = apply(FLAT, model)
    assert (bool(change), change.note) == (False, "no dense layer reads [batch, seq, width]")
    assert model.fingerprint() == before


def test_a_reshape_to_sizes_that_are_fed_stays():
    """Behind another one it cannot be joined with it: nothing says what shape it gives."""
    x, sizes = gs.Variable("x", np.float32, [2, 6]), gs.Variable("sizes", np.int64, [2])
    between, y = gs.Variable("between"), gs.Variable("y", np.float32, [None, None])
    nodes = [
        gs.Node("Reshape", "first", inputs=[x, gs.Constant("shape", np.array([3, 4]))], outputs=[between]),
        gs.Node("Reshape", "second", inputs=[between, sizes], outputs=[y]),
    ]
    model = Model.from_proto(gs.export_onnx(gs.Graph(nodes, inputs=[x, sizes], outputs=[y], opset=17)))
    join_reshapes(model)
    assert [(node.op, node.inputs[1].name) for node in model.graph.nodes] == [
        ("Reshape", "shape"),
        ("Reshape", "sizes"),
    ]
