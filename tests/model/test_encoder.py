"""The encoder is found in every exporter's graph, with the roles that the source model gave its weights."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from graphs import (
    EVERY,
    EXPORTS,
    FAMILIES,
    SOME,
    apply,
    every_padding,
    feeds,
    fixture,
    prepared,
    reference,
    shared_graph,
)
from oracles import (
    answers,
    assert_layers,
    assert_linear,
    assert_roles,
    assert_same_answers,
    assert_same_outputs,
    matrix,
)
from random_encoders import HEADS, Kind, encoder

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.model.attention_form import AttentionForm
from onnxslim_bert.model.encoder import Encoder
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize

CANONICAL = Canonicalize()
MASKED = AttentionForm(scale=0.5, mask="attention_mask")


@pytest.mark.parametrize("name", EVERY)
def test_every_role_is_the_source_model_s_weight(name):
    """Query, key, value, output, up and down of every layer, the tables and the projection; scale and mask proven."""
    model = prepared(name, CANONICAL)
    assert_roles(model, reference(name))
    assert [layer.form for layer in model.encoder.layers] == [MASKED] * 3
    assert model.encoder.mask == "attention_mask"


@pytest.mark.parametrize("name", ["fused-attention", "fused-mha", "bert-dynamo23-sdpa"])
def test_fused_graphs_hold_the_same_encoder(name):
    """com.microsoft Attention and MultiHeadAttention with what goes with them, and ONNX's own Attention."""
    assert_roles(prepared(name, CANONICAL), reference(name))


@pytest.mark.parametrize("name", ["fused-attention", "fused-mha"])
def test_a_mask_that_counts_tokens_shows_the_first_of_them(name):
    """onnxruntime.transformers reads the mask's sum: with holes in the mask that is something else, and stays so."""
    source, model = Model.load(fixture(name)), prepared(name, CANONICAL)
    seen = model.encoder.mask
    assert seen is not None
    assert seen not in [tensor.name for tensor in model.graph.inputs]
    assert [layer.form for layer in model.encoder.layers] == [AttentionForm(0.5, seen)] * 3
    given = every_padding(source)
    for actual, expected in zip(answers(model, given), answers(source, given), strict=True):
        assert_same_answers(actual, expected, 1e-5)


def test_a_model_without_a_mask_sees_every_token():
    encoder = prepared("bert-nomask", CANONICAL).encoder
    assert [layer.form for layer in encoder.layers] == [AttentionForm(0.5, None)] * 3
    assert encoder.mask is None


@pytest.mark.parametrize("name", ["quantized-dynamic", "quantized-qdq"])
def test_quantized_graphs_hold_the_same_encoder(name):
    """One line maps each role's integers to the source model's weights, to about half a step; biases stay float."""
    model, expected = prepared(name, CANONICAL), reference(name)
    for layer in model.encoder.layers:
        assert (layer.heads, layer.head_dim) == (3, 4)
        assert list(layer.linears) == ["query", "key", "value", "output", "up", "down"]
        for role, linear in layer.linears.items():
            place = f"layers.{layer.index}.{role}"
            integers, weight = matrix(model, linear).astype(float), expected[f"{place}.weight"].T
            step, start = np.polyfit(integers.ravel(), weight.ravel(), 1)
            assert linear.quantized
            assert np.abs(step * integers + start - weight).max() < 0.6 * step, place
            assert linear.bias is not None
            np.testing.assert_array_equal(model.array(linear.bias), expected[f"{place}.bias"], place)


@pytest.mark.parametrize("export", EXPORTS)
def test_albert_s_layers_name_one_set_of_weights(export):
    """Constant folding parts them and deduplication joins them again, whatever the exporter did."""
    layers = prepared(f"albert-{export}", CANONICAL).encoder.layers
    names = {tuple((linear.weight, linear.bias) for linear in layer.linears.values()) for layer in layers}
    assert len(names) == 1
    assert len({linear.node for layer in layers for linear in layer.linears.values()}) == 18


@pytest.mark.parametrize("name", SOME)
def test_names_mean_nothing(name):
    """Every node and every tensor but the inputs renamed: the same encoder."""
    model = prepared(name, CANONICAL)
    ends = {id(tensor) for tensor in (*model.graph.inputs, *model.graph.outputs)}
    rng = np.random.default_rng(0)
    for node in model.graph.nodes:
        node.name = f"n{rng.integers(1 << 60)}"
    for tensor in model.graph.tensors().values():
        if id(tensor) not in ends:
            tensor.name = f"t{rng.integers(1 << 60)}"
    model.changed()
    assert_roles(model, reference(name))


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("size", [(1, 9), (2, 5)])
def test_fixed_shapes_are_read_too(name, size):
    """Batch and length written in the file, as mobile targets need them; what fixed positions look up is folded."""
    model = Model.load(fixture(name))
    for tensor in model.graph.inputs:
        tensor.shape = list(size)
    apply(CANONICAL, model)
    assert_layers(model, reference(name))
    assert "word" in model.encoder.embeddings.tables
    assert [layer.form for layer in model.encoder.layers] == [MASKED] * 3


@pytest.mark.parametrize("name", SOME)
def test_the_standard_domain_may_be_spelled_out(tmp_path, name):
    """ "ai.onnx" and "" are one domain."""
    proto = onnx.load(fixture(name))
    for entry in proto.opset_import:
        entry.domain = entry.domain or "ai.onnx"
    onnx.save(proto, tmp_path / "m.onnx")
    model = Model.load(tmp_path / "m.onnx")
    apply(CANONICAL, model)
    assert_roles(model, reference(name))
    assert [layer.form for layer in model.encoder.layers] == [MASKED] * 3


def packed(model: Model) -> Model:
    """Query, key and value of every layer computed by one matrix and split, as nn.MultiheadAttention has them."""
    for layer in model.encoder.layers:
        tensors = model.graph.tensors()
        linears = [layer.query, layer.key, layer.value]
        build = Builder(model.graph, f"packed.{layer.index}")
        weight = build.constant("weight", np.concatenate([matrix(model, linear) for linear in linears], axis=1))
        bias = build.constant("bias", np.concatenate([model.array(linear.bias) for linear in linears]))
        product = build.node("MatMul", "product", [tensors[layer.key.source], weight])
        together = build.node("Add", "together", [product, bias])
        parts = build.nodes("Split", "part", [together, build.constant("sizes", np.array([12, 12, 12]))], 3, axis=-1)
        for linear, part in zip(linears, parts, strict=True):
            redirect(model.graph, tensors[linear.result], part)
        model.changed()
    return model


def test_packed_query_key_and_value_are_parted():
    """`canonicalize` gives each its own matrix."""
    model = packed(prepared("bert-dynamo18-eager", CANONICAL))
    before = model.clone()
    apply(CANONICAL, model)
    assert_roles(model, reference("bert"))
    assert_same_outputs(model, before, [feeds(model)], atol=1e-6)


def test_albert_s_packed_matrices_stay_shared():
    model = packed(prepared("albert-dynamo18-eager", CANONICAL))
    apply(CANONICAL, model)
    assert_roles(model, reference("albert"))
    assert len({layer.query.weight for layer in model.encoder.layers}) == 1


# graphs that others exported


def shared_encoder(name: str) -> tuple[Model, Encoder]:
    model = prepared(shared_graph(name), CANONICAL)
    return model, model.encoder


def test_a_pytorch_1_10_distilbert_is_read():
    model, encoder = shared_encoder("optimum_tiny_bert_seqcls_pt110_opset11")
    assert (len(encoder.layers), encoder.hidden, encoder.mask) == (2, 2, "attention_mask")
    assert [(layer.heads, layer.head_dim, layer.form) for layer in encoder.layers] == [
        (2, 1, AttentionForm(1.0, "attention_mask"))
    ] * 2
    assert {role: model.array(name).shape[1] for role, name in encoder.embeddings.tables.items()} == {
        "word": 2,
        "position": 2,
    }
    assert_same_outputs(model, Model.load(shared_graph("optimum_tiny_bert_seqcls_pt110_opset11")), [feeds(model)], 1e-5)


def test_a_pytorch_1_7_encoder_is_read_and_its_odd_attention_left_alone():
    """It attends over the batch, sequence first: roles are found, and the form is not claimed."""
    _, encoder = shared_encoder("vespa_dummy_bert_pt17_opset12")
    assert (len(encoder.layers), encoder.hidden) == (2, 16)
    for layer in encoder.layers:
        assert (layer.heads, layer.head_dim, layer.up.d_out) == (2, 8, 32)
        assert layer.up.bias.endswith("linear1.bias")
        assert layer.down.bias.endswith("linear2.bias")
        assert layer.form is None
        assert "not scaled dot-product attention" in layer.reason


def test_one_attention_block_is_read():
    """Hand-built, without a feed-forward; its mask has another length than its input, so that it cannot run."""
    _, encoder = shared_encoder("attn_distilbert_opset12")
    (layer,) = encoder.layers
    found = {role: (linear.weight, linear.bias) for role, linear in layer.linears.items()}
    assert found == {
        "query": ("matmul_q_weight", "add_q_weight"),
        "key": ("matmul_k_weight", "add_k_weight"),
        "value": ("matmul_v_weight", "add_v_weight"),
        "output": ("matmul_qkv_weight", "add_qkv_weight"),
    }
    assert (layer.heads, layer.head_dim, layer.form) == (2, 4, None)
    assert "does not run" in layer.reason


def test_a_fused_block_with_a_raw_mask_is_read():
    model, encoder = shared_encoder("ortfused_attention_mha")
    (layer,) = encoder.layers
    assert (layer.heads, layer.head_dim, encoder.hidden, encoder.mask) == (2, 8, 16, "input_mask")
    packed_bias = Model.load(shared_graph("ortfused_attention_mha"))
    (attention,) = (node for node in packed_bias.graph.nodes if node.op == "MultiHeadAttention")
    for linear, tensor in zip((layer.query, layer.key, layer.value), attention.inputs[:3], strict=True):
        np.testing.assert_array_equal(model.array(linear.weight), tensor.inputs[0].inputs[1].values)


# what is no encoder, or none that can be read


@pytest.mark.parametrize("name", ["decoder-ts17", "decoder-dynamo18"])
def test_a_decoder_without_a_cache_is_read_and_its_attention_not_claimed(name):
    """Its matrices, packed into one, are told apart; which keys a token sees is left as it is."""
    (layer,) = prepared(name, CANONICAL).encoder.layers
    assert (layer.heads, layer.head_dim, layer.form) == (3, 4, None)
    assert layer.up is not None


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_what_has_no_attention_is_refused_for_that(name):
    """Both have a Softmax: it is not what makes attention. The reason lists what the graph has instead."""
    with pytest.raises(ModelError, match=r"not a transformer encoder: no self-attention \(1 Softmax, none between"):
        _ = prepared(name, CANONICAL).encoder


def test_an_encoder_made_causal_is_called_so():
    """The same weights and roles, and a triangle added to the scores."""
    model = prepared("bert-dynamo18-eager", CANONICAL)
    for node in [node for node in model.graph.nodes if node.op == "Softmax"]:
        build = Builder(model.graph, f"{node.name}/causal")
        ones = build.node("ConstantOfShape", "ones", [build.node("Shape", "shape", [node.inputs[0]])])
        ones.inputs[0].attrs["value"] = gs.Constant("value", np.ones(1, np.float32))
        later = build.node("Trilu", "later", [ones, build.constant("from", np.array(1))], upper=1)
        hidden = build.node("Mul", "hidden", [later, build.constant("low", np.array(-1e4, np.float32))])
        node.inputs[0] = build.node("Add", "masked", [node.inputs[0], hidden])
    model.changed()
    assert {(layer.form, layer.reason) for layer in model.encoder.layers} == {
        (None, "each token sees only earlier ones (a causal mask)")
    }


def test_cross_attention_is_refused():
    """The query of layer 1 reads what layer 0 read."""
    model = prepared("bert-dynamo18-eager", CANONICAL)
    first, second, _ = model.encoder.layers
    nodes, tensors = {node.name: node for node in model.graph.nodes}, model.graph.tensors()
    nodes[second.query.node].inputs[0] = tensors[first.query.source]
    model.changed()
    with pytest.raises(ModelError, match="layer 1: query and key read different tensors: cross-attention"):
        _ = model.encoder


def test_attention_of_another_kind_is_not_claimed():
    """Scores squared before the softmax: the roles stand, the form does not."""
    model = prepared("bert-dynamo18-eager", CANONICAL)
    softmax = next(node for node in model.graph.nodes if node.op == "Softmax")
    softmax.inputs[0] = Builder(model.graph, "odd").node("Mul", "squared", [softmax.inputs[0]] * 2)
    model.changed()
    forms = [layer.form for layer in model.encoder.layers]
    assert forms[1:] == [MASKED] * 2
    assert forms[0] is None
    assert_linear(model, model.encoder.layers[0].query, reference("bert"), "layers.0.query")


def test_every_family_differs():
    """The references are not one model six times."""
    assert len({reference(family)["layers.0.query.weight"].tobytes() for family in FAMILIES}) == 6


def test_scores_beside_a_sink_are_named():
    """A number that is no key's takes part in each softmax: nothing but int8 reads such attention, and it is said."""
    kind = Kind("table", 0, "none", False, HEADS, "layer", False, "none", "none", "input", 0, "first")
    model = encoder(kind)
    build = Builder(model.graph, "sink")
    for softmax in [node for node in model.graph.nodes if node.op == "Softmax"]:
        sink = build.node("ReduceMean", "sink", [softmax.inputs[0]], axes=[3])
        softmax.inputs[0] = build.node("Concat", "joined", [softmax.inputs[0], sink], axis=3)
        bounds = [build.constant("bound", np.array([n])) for n in (0, -1, 3)]
        product = softmax.outputs[0].outputs[0]
        product.inputs[0] = build.node("Slice", "kept", [softmax.outputs[0], *bounds])
    model.graph.toposort()
    model.changed()
    with pytest.raises(ModelError, match=r"no self-attention \(2 Softmax over scores and a sink, .*only int8 passes"):
        assert model.encoder
