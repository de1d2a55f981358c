"""Every constant matrix is a dense layer, whether or not an encoder is read around it."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import apply, feeds, prepared
from oracles import answers

from onnxslim_bert.errors import ModelError, NoEncoderError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.dense import dense_layers, embeddings_of, encoder_of
from onnxslim_bert.model.linear import read_product
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_weights import QuantizeWeights

CANONICAL = Canonicalize()
FLAT, WIDE = 36, 64


def causal(model: Model) -> Model:
    """`model` with scores that hide later tokens."""
    for node in [node for node in model.graph.nodes if node.op == "Softmax"]:
        build = Builder(model.graph, f"{node.name}/causal")
        ones = build.constant("ones", np.ones((1, 64, 64), np.float32))
        seq = build.node("Shape", "seq", [node.inputs[0]], start=-1)
        zeros, axes = build.constant("zeros", np.zeros(2, np.int64)), build.constant("axes", np.array([1, 2], np.int64))
        cut = build.node("Slice", "cut", [ones, zeros, build.node("Concat", "ends", [seq, seq], axis=0), axes])
        later = build.node("Trilu", "later", [cut, build.constant("k", np.array(1, np.int64))], upper=1)
        hidden = build.node("Mul", "hidden", [later, build.constant("low", np.array(-1e4, np.float32))])
        node.inputs[0] = build.node("Add", "masked", [node.inputs[0], hidden])
    model.changed()
    return model


def widened(model: Model) -> Model:
    """`model` with a layer beside the encoder that no role names: its last state times one matrix, added at 1e-3."""
    output = model.graph.outputs[0]
    build = Builder(model.graph, "beside")
    rng = np.random.default_rng(0)
    width = model.encoder.hidden if output.shape is None else int(output.shape[-1])
    first = build.constant("first", rng.standard_normal((width, FLAT)).astype(np.float32))
    second = build.constant("second", rng.standard_normal((FLAT, WIDE)).astype(np.float32))
    wide = build.node("MatMul", "wide", [build.node("MatMul", "flat", [output, first]), second])
    model.graph.outputs = [*model.graph.outputs, wide]
    wide.dtype = np.dtype(np.float32)
    model.changed()
    return model


@pytest.mark.parametrize("op", ["Add", "Sum"])
def test_matrices_on_both_sides_of_a_residual_sum_are_no_factors(op):
    """Of a thin layer without a bias, added to the stream, which one dense layer reads: two layers."""
    graph = gs.Graph(opset=17)
    build = Builder(graph, "")
    stream, wide = (gs.Variable(name, np.float32, ["rows", size]) for name, size in (("stream", 4), ("wide", 8)))
    first, second = (build.constant("weight", np.ones(shape, np.float32)) for shape in ((8, 4), (4, 8)))
    summed = build.node(op, "sum", [stream, build.node("MatMul", "thin", [wide, first])])
    last = build.node("MatMul", "last", [summed, second])
    last.dtype = np.dtype(np.float32)
    graph.inputs, graph.outputs = [stream, wide], [last]
    assert [(read_product(node).d_in, read_product(node).factors) for node in graph.nodes if node.op == "MatMul"] == [
        (8, ()),
        (4, ()),
    ]


def test_a_file_of_integer_operators_is_called_quantized():
    """As ONNX Runtime's static quantization writes it in operator form: no product of floats is left."""
    model = prepared("bert-ts17-sdpa", CANONICAL)
    for node in model.graph.nodes:
        node.op = {"MatMul": "QLinearMatMul", "Gemm": "QLinearMatMul", "Softmax": "QLinearSoftmax"}.get(
            node.op, node.op
        )
    model.changed()
    with pytest.raises(ModelError, match=r"quantized already \([0-9]+ QLinearMatMul\); start from the float model"):
        dense_layers(model)


def test_a_tower_without_an_encoder_has_dense_layers_and_tables():
    whole = prepared("bert-ts13-eager", CANONICAL)
    tower = prepared("bert-ts13-eager", CANONICAL)
    for node in [node for node in tower.graph.nodes if node.op == "Softmax"]:
        node.op = "Sigmoid"
        node.attrs.clear()
    tower.changed()
    with pytest.raises(NoEncoderError, match="no self-attention"):
        tower.encoder  # noqa: B018
    assert encoder_of(tower) is None
    assert embeddings_of(tower).tables == whole.encoder.embeddings.tables
    assert embeddings_of(tower).vocabulary == whole.encoder.embeddings.vocabulary


@pytest.mark.parametrize("step", [QuantizeDynamic(), QuantizeWeights()], ids=str)
def test_a_matrix_without_a_role_is_quantized_too(step):
    """The layer beside the encoder becomes integers, and gives about what it gave."""
    model = widened(prepared("bert-ts17-eager", CANONICAL))
    given = feeds(model)
    (before,) = answers(model, [given])
    names = {linear.weight for linear in dense_layers(model)}
    assert {"beside/second"} <= names
    apply(step, model)
    assert not any(c.values.shape == (FLAT, WIDE) and c.values.dtype == np.float32 for c in model.constants().values())
    (after,) = answers(model, [given])
    wide = model.graph.outputs[-1].name
    assert np.abs(after[wide] - before[wide]).max() < 0.05 * np.abs(before[wide]).max()


def test_a_decoder_with_a_cache_is_refused_where_no_encoder_is_read():
    """Keys of earlier tokens beside the keys of this one: a graph input put beside an activation."""
    model = causal(prepared("bert-ts13-eager", CANONICAL))
    softmax = next(node for node in model.graph.nodes if node.op == "Softmax")
    product = next(node for node in softmax.outputs[0].outputs if node.op == "MatMul")
    past = gs.Variable("past", np.dtype(np.float32), ["batch", 3, "past", 4])
    model.graph.inputs.append(past)
    build = Builder(model.graph, "cache")
    product.inputs[1] = build.node("Concat", "joined", [past, product.inputs[1]], axis=2)
    model.changed()
    with pytest.raises(ModelError, match="'past' keeps keys and values of earlier tokens"):
        dense_layers(model)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_what_reads_no_tokens_and_attends_to_nothing_is_refused(name):
    with pytest.raises(ModelError, match="not a transformer encoder: no self-attention"):
        dense_layers(prepared(name, CANONICAL))


@pytest.mark.parametrize("name", ["decoder-ts17", "decoder-dynamo18"])
def test_a_decoder_without_a_cache_is_quantized(name):
    """It embeds texts as an encoder does: products of 12 channels and more become integers, answers stay close."""
    model = prepared(name, CANONICAL)
    given = feeds(model)
    (before,) = answers(model, [given])
    apply(QuantizeDynamic(), model)
    (after,) = answers(model, [given])
    for output, exact in before.items():
        assert np.abs(after[output] - exact).max() < 0.1 * np.abs(exact).max()


def test_a_graph_without_a_constant_matrix_is_refused():
    x = gs.Variable("x", np.dtype(np.float32), ["batch", "seq", 4])
    t = gs.Variable("t", np.dtype(np.float32), ["batch", 4, "seq"])
    y = gs.Variable("y", np.dtype(np.float32), ["batch", "seq", "seq"])
    turn = gs.Node("Transpose", "turn", {"perm": [0, 2, 1]}, [x], [t])
    graph = gs.Graph([turn, gs.Node("MatMul", "scores", {}, [x, t], [y])], inputs=[x], outputs=[y], opset=17)
    model = Model.from_proto(gs.export_onnx(graph))
    with pytest.raises(ModelError, match="no constant matrix"):
        dense_layers(model)
