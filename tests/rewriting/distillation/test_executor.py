"""The executor computes what ONNX Runtime computes, and its gradients are those of finite differences."""

from functools import cache

import numpy as np
import onnx
import pytest
from graphs import EVERY, FIXTURES, SHARED, SOME, every_padding, feeds, fixture, prepared
from oracles import answers

from onnxslim_bert.errors import ModelError, PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.spans import find_spans
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.decouple import Decouple
from onnxslim_bert.passes.drop_layers import DropLayers
from onnxslim_bert.passes.drop_tokens import DropTokens
from onnxslim_bert.passes.factorize_embedding import FactorizeEmbedding
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.low_rank import LowRank
from onnxslim_bert.passes.prune_ffn import PruneFfn
from onnxslim_bert.passes.prune_heads import PruneHeads
from onnxslim_bert.passes.share_weights import ShareWeights
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.split_outliers import SplitOutliers
from onnxslim_bert.passes.trim_vocabulary import TrimVocabulary
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.rewriting.contract import Context

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'")

from onnxslim_bert.rewriting.distillation.executor import Executor  # noqa: E402
from onnxslim_bert.rewriting.distillation.operators import OPERATORS  # noqa: E402
from onnxslim_bert.rewriting.distillation.weights import trainable  # noqa: E402

CANONICAL, FUSE, STANDARD = Canonicalize(), Fuse(), Fuse(style="standard")
OTHERS = ("bert-dynamo23-sdpa", "bert-features", "bert-features-pooled", "bert-mlm", "bert-mlm-tied", "bert-nomask")
FUSED = ("fused-attention", "fused-mha")
QUANTIZED = ("quantized-qdq", "quantized-dynamic")
PASSES = {
    "drop-layers": (FUSE, DropLayers()),
    "drop-tokens": (FUSE, FirstToken(), DropTokens(after=0, at_least=2)),
    "factorize-embedding": (FUSE, FactorizeEmbedding(rank=5)),
    "first-token": (FUSE, FirstToken()),
    "low-rank": (FUSE, LowRank()),
    "prune-ffn": (FUSE, PruneFfn(keep=0.5)),
    "prune-heads": (FUSE, PruneHeads(keep=0.5)),
    "share-weights": (FUSE, ShareWeights()),
    "split-outliers": (FUSE, SplitOutliers()),
    "trim-vocabulary": (FUSE, TrimVocabulary()),
    "unpad": (FUSE, Unpad()),
}


def assert_same_values(model, given):
    """PyTorch gives the outputs of ONNX Runtime, in type and shape, to 1e-5."""
    executor = Executor(model)
    names = [tensor.name for tensor in model.graph.outputs]
    for batch, expected in zip(given, answers(model, given, optimize=False), strict=True):
        for name, ours in zip(names, executor.run(batch), strict=True):
            assert (ours.numpy().dtype, tuple(ours.shape)) == (expected[name].dtype, expected[name].shape), name
            np.testing.assert_allclose(ours.numpy(), expected[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("form", [(), (FUSE,), (STANDARD,)], ids=["canonical", "contrib", "standard"])
@pytest.mark.parametrize("name", [*EVERY, *OTHERS, *FUSED])
def test_every_fixture_gives_what_onnx_runtime_gives(name, form):
    model = prepared(name, CANONICAL, *form)
    assert_same_values(model, every_padding(model))


@pytest.mark.parametrize("steps", PASSES.values(), ids=PASSES)
@pytest.mark.parametrize("name", ["bert-dynamo20-sdpa", "roberta-ts17-eager"])
def test_what_float_passes_write_is_known(name, steps):
    model = prepared(name, CANONICAL, *steps)
    assert_same_values(model, every_padding(model))


@cache
def shared_families():
    folder = SHARED / "graphs" / "families"
    return sorted(folder.glob("*/model.onnx")) if folder.is_dir() else []


@pytest.mark.parametrize("name", ["bert-dynamo20-sdpa", "albert-ts14-sdpa"])
def test_a_model_that_reads_two_texts_apart_is_known_and_trained(name):
    """Weights of the layers below the cut and of those above it have gradients."""
    model = prepared(name, CANONICAL, FUSE)
    layers = model.encoder.layers
    weights = [linear.weight for layer in (layers[0], layers[-1]) for linear in (layer.value, layer.down)]
    Decouple(layers=1, start=7).apply(model, Context())
    given = every_padding(model)
    for batch in given:
        types = batch["token_type_ids"]
        types[:] = np.arange(types.shape[1]) >= types.shape[1] // 2
    assert_same_values(model, given)
    executor = Executor(model, weights)
    executor.run(given[0])[0].square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in executor.parameters.values())


@pytest.mark.parametrize("path", shared_families() or [None], ids=lambda path: path.parent.name if path else "none")
def test_every_family_that_is_read_is_known(path):
    if path is None:
        pytest.skip("no families of encoders beside the checkout: set ONNXSLIM_SHARED")
    try:
        model = prepared(path, CANONICAL, FUSE)
    except (ModelError, ValueError) as error:
        pytest.skip(f"not read as an encoder: {error}")
    assert_same_values(model, every_padding(model))


@pytest.mark.parametrize(
    ("name", "form", "alone"),
    [
        *((name, (FUSE,), True) for name in SOME),
        *((name, (FUSE,), False) for name in (*OTHERS, *FUSED)),  # other kinds of outputs
        *((name, form, False) for name in SOME for form in ((), (STANDARD,))),
    ],
)
def test_gradients_are_those_of_finite_differences(name, form, alone):
    """For every weight alone, or all together, along a random direction, in float64."""
    model = prepared(name, CANONICAL, *form)
    names = trainable(model, words=True)
    executor = Executor(model, names, dtype=torch.float64)
    given, rng = feeds(model), np.random.default_rng(3)

    def loss():
        return sum((output * output.sin()).sum() for output in executor.run(given) if output.is_floating_point())

    loss().backward()
    for weights in ([name] for name in names) if alone else [names]:
        parameters = [executor.parameters[weight] for weight in weights]
        steps = [torch.from_numpy(rng.standard_normal(parameter.shape)) * 1e-6 for parameter in parameters]
        sides = []
        with torch.no_grad():
            for sign in (1, -1):
                torch._foreach_add_(parameters, steps, alpha=sign)
                sides.append(loss())
                torch._foreach_add_(parameters, steps, alpha=-sign)
        expected = float(sides[0] - sides[1]) / 2
        found = sum(float((parameter.grad * step).sum()) for parameter, step in zip(parameters, steps, strict=True))
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-12), weights


@pytest.mark.parametrize("form", [(), (FUSE,), (STANDARD,)], ids=["canonical", "contrib", "standard"])
@pytest.mark.parametrize("name", SOME)
def test_gradients_in_bfloat16_are_those_of_float32_but_for_rounding(name, form):
    model = prepared(name, CANONICAL, *form)
    given, names = feeds(model), trainable(model)
    found = []
    for enabled in (False, True):
        executor = Executor(model, names)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outputs = executor.run(given)
        sum((output.float().sin()).sum() for output in outputs if output.is_floating_point()).backward()
        found.append(torch.cat([executor.parameters[name].grad.flatten() for name in names]))
    apart = float((found[1] - found[0]).norm() / found[0].norm())
    assert 0 < apart < 0.05


def test_a_bias_takes_the_type_of_the_products_that_it_is_added_to():
    """On either side; a sum of two streams is the wider one's, and whole numbers are added as they are."""
    add = OPERATORS["", "Add"]
    products, bias, stream = torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(3), torch.ones(2, 3)
    assert [add(*pair).dtype for pair in ((products, bias), (bias, products))] == [torch.bfloat16] * 2
    assert [add(*pair).dtype for pair in ((products, stream), (stream, bias))] == [torch.float32] * 2
    assert add(torch.ones(2, 3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)).dtype == torch.int64


def test_a_weight_that_layers_share_is_one_parameter():
    model = prepared("albert-ts17-sdpa", CANONICAL, FUSE)
    executor = Executor(model, trainable(model))
    layers = model.encoder.layers
    assert len({layer.query.weight for layer in layers}) == 1
    assert layers[0].query.weight in executor.parameters
    assert len(executor.parameters) == len(set(trainable(model)))


@pytest.mark.parametrize("name", SOME)
def test_every_matrix_of_the_encoder_is_a_weight_and_no_other_number_is(name):
    model = prepared(name, CANONICAL, FUSE)
    encoder = model.encoder
    linears = [linear for layer in encoder.layers for linear in layer.linears.values()] + list(encoder.head)
    expected = {name for linear in linears for name in (linear.weight, linear.bias) if name}
    found = trainable(model)
    assert expected <= set(found)
    assert encoder.embeddings.word not in found
    assert {encoder.embeddings.position, encoder.embeddings.token_type} - {None} <= set(found)
    assert trainable(model, words=True).count(encoder.embeddings.word) == 1
    widths = {encoder.hidden, *(size for linear in linears for size in (linear.d_in, linear.d_out))}
    tables = set(encoder.embeddings.tables.values())
    projection = encoder.embeddings.projection
    widths |= {projection.d_in, projection.d_out} if projection else set()
    assert all(model.array(weight).shape[-1] in widths for weight in found if weight not in tables)


def test_parameters_go_back_under_their_names():
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    weight = model.encoder.layers[1].up.weight
    executor = Executor(model, [weight])
    with torch.no_grad():
        executor.parameters[weight] += 0.25
    np.testing.assert_array_equal(executor.trained()[weight], model.array(weight) + np.float32(0.25))


def test_values_inside_the_graph_can_be_asked_for():
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    given = feeds(model)
    query, weight = model.encoder.layers[1].query, model.encoder.layers[0].query.weight
    inner, constant = Executor(model).run(given, [query.result, weight])
    assert inner.shape == (3, 7, query.d_out)
    np.testing.assert_array_equal(constant, model.array(weight))


def test_a_graph_can_be_run_from_a_tensor_inside():
    """What that is computed from is not run: nothing depends on other texts any more."""
    model = prepared("bert-dynamo20-sdpa", CANONICAL, FUSE)
    exits = [span.exit for span in find_spans(model)]
    given, other = feeds(model), feeds(model, seed=9)
    executor = Executor(model)
    whole = executor.run(given)
    state = executor.run(given, exits[:1])[0].numpy()
    mask = {name: values for name, values in given.items() if "mask" in name}
    for ours, expected in zip(executor.run({**other, **mask, exits[0]: state}), whole, strict=True):
        np.testing.assert_array_equal(ours.numpy(), expected.numpy())


HEADS = {
    "Elu": {"alpha": 0.5},
    "LeakyRelu": {"alpha": 0.2},
    "LogSoftmax": {"axis": 1},
    "LpNormalization": {"axis": -1, "p": 1},
    "ReduceL1": {"keepdims": 0},
    "ReduceL2": {"keepdims": 1},
    "ReduceLogSumExp": {"keepdims": 0},
    "ReduceSumSquare": {"keepdims": 1},
    "Softplus": {},
}


@pytest.mark.parametrize("op", HEADS)
def test_operators_of_heads_give_what_onnx_runtime_gives(op, tmp_path):
    """Norms of embeddings, chances of classes: what may follow an encoder; their gradients are those of differences."""
    axes = [onnx.numpy_helper.from_array(np.array([-1]), "axes")] if op.startswith("Reduce") else []
    node = onnx.helper.make_node(op, ["x", *("axes" for _ in axes)], ["y"], **HEADS[op])
    shapes = {"x": [2, 3, 5], "y": [None] * (2 + HEADS[op].get("keepdims", 1))}
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items())
    graph = onnx.helper.make_graph([node], "head", [x], [y], axes)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(made, tmp_path / "head.onnx")
    model, values = Model.load(tmp_path / "head.onnx"), np.random.default_rng(0).standard_normal((2, 3, 5))
    assert_same_values(model, [{"x": values.astype(np.float32)}])
    function = Executor(model, dtype=torch.float64)._nodes[id(model.graph.nodes[0])]
    given = [torch.tensor(values, requires_grad=True), *(torch.tensor([-1]) for _ in axes)]
    assert torch.autograd.gradcheck(lambda x: function[0](x, *given[1:], **function[1]), given[:1])


@pytest.mark.parametrize(
    ("name", "steps", "op"),
    [
        ("cnn", (), "GlobalAveragePool"),
        ("bert-ts17-sdpa", (FUSE, SkipMask()), "If"),
    ],
)
def test_an_operator_that_is_not_known_is_named(name, steps, op):
    model = prepared(name, CANONICAL, *steps)
    with pytest.raises(PassError, match=rf"operator {op} cannot be trained through; run this pass before those"):
        Executor(model)


def test_an_attribute_that_is_not_known_is_named():
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    node = next(node for node in model.graph.nodes if node.op == "MultiHeadAttention")
    node.attrs["unidirectional"] = 1
    with pytest.raises(PassError, match="'unidirectional' cannot be trained through"):
        Executor(model)


def test_what_cannot_be_run_is_named():
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    given = feeds(model)
    given["input_ids"] = given["input_ids"][:, :2]
    with pytest.raises(PassError, match=r"node '.*' \(.*\) cannot be run"):
        Executor(model).run(given)


def test_half_precision_weights_run_and_are_not_trained():
    model = prepared("bert-ts17-sdpa", CANONICAL, Float16())
    weight = model.encoder.layers[0].up.weight
    assert Executor(model, [weight]).trained()[weight].dtype == np.float16
    with pytest.raises(PassError, match="is float16; start from the float32 model"):
        trainable(model)


def test_every_fixture_is_run_or_refused_here():
    named = {fixture(name) for name in (*EVERY, *OTHERS, *FUSED, *QUANTIZED, "cnn")}
    others = {"mlp", "decoder-dynamo18", "decoder-ts17"}
    assert {*FIXTURES.glob("*.onnx")} == named | {fixture(name) for name in others}


@pytest.mark.parametrize("name", ["mlp", "decoder-dynamo18", "decoder-ts17"])
def test_graphs_that_are_no_encoders_run_as_well(name):
    model = Model.load(fixture(name))
    Canonicalize().apply(model, None)
    given = [feeds(model)] if name != "mlp" else [{model.graph.inputs[0].name: np.ones((3, 12), np.float32)}]
    assert_same_values(model, given)
