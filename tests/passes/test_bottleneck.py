"""Layers work on fewer channels than the stream between them, as MobileBERT's do."""

import numpy as np
import pytest
from graphs import SOME, apply, every_padding, feeds, prepared, trials
from oracles import answers, assert_same_outputs
from random_encoders import HEADS, Kind, encoder

from onnxslim_bert.calibration.observers import Gram
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.spans import find_spans
from onnxslim_bert.passes.bottleneck import Bottleneck
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.low_rank import LowRank
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.pruning.bottleneck import write_bottleneck
from onnxslim_bert.rewriting.pruning.stream_refit import LEAST_SHARE, _added_share, _less_added

CANONICAL, FUSE, STANDARD = Canonicalize(), Fuse(), Fuse(style="standard")
OWN = [name for name in SOME if "albert" not in name]  # layers with matrices of their own
POST_NORM = [name for name in OWN if "prenorm" not in name]


@pytest.mark.parametrize("form", [(), (FUSE,), (STANDARD,)], ids=["canonical", "contrib", "standard"])
@pytest.mark.parametrize("name", POST_NORM)
def test_with_all_channels_in_any_order_a_layer_computes_what_it_did(name, form):
    """Where the matrix behind it takes its norm back and makes what is added too small to count."""
    model = prepared(name, CANONICAL, *form)
    wide, rng = model.clone(), np.random.default_rng(5)
    norms = {node.outputs[0].name: node for node in model.graph.nodes if node.op == "LayerNormalization"}
    if not norms:
        pytest.skip("norms are elementary before `fuse`")
    for layer, span in zip(model.encoder.layers, find_spans(model), strict=True):
        order = rng.permutation(model.encoder.hidden)
        *_, behind = write_bottleneck(wide, layer, span, order)
        gamma, beta = (tensor.values.astype(np.float64) for tensor in norms[span.exit].inputs[1:3])
        (node,) = (node for node in wide.graph.nodes if node.name == behind.nodes[0])
        weight, bias = node.inputs[1].name, node.outputs[0].outputs[0].inputs[1].name
        wide.changed()
        wide.replace(weight, (1e5 * wide.array(weight) / gamma).astype(np.float32))
        wide.replace(bias, (-1e5 * beta / gamma).astype(np.float32))
    assert len([node for node in wide.graph.nodes if "bottleneck" in node.name]) == 6 * len(model.encoder.layers)
    assert_same_outputs(wide, model, every_padding(model), atol=1e-3)


@pytest.mark.parametrize("name", OWN)
def test_layers_are_narrow_and_all_between_them_is_wide(name):
    """Inputs, outputs, tables and head are as they were; the refit takes the answers nearer to those before."""
    model, given = prepared(name, CANONICAL, FUSE), trials(prepared(name, CANONICAL, FUSE))
    cut, fitted = model.clone(), model.clone()
    Bottleneck(width=7, refit=False).apply(cut, Context({}, given))
    change = Bottleneck(width=7).apply(fitted, Context({}, given))
    assert f"layers work on 7 of {model.encoder.hidden} channels" in change.note
    assert given.damage(fitted) < 0.9 * given.damage(cut)
    before, after = model.encoder, fitted.encoder
    assert after.hidden == 7
    assert [layer.heads for layer in after.layers] == [layer.heads for layer in before.layers]
    assert fitted.array(after.embeddings.word).shape == model.array(before.embeddings.word).shape
    for ours, theirs in zip(answers(fitted, every_padding(model)), answers(model, every_padding(model)), strict=True):
        assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}


def test_it_keeps_the_channels_from_which_the_others_follow():
    """Of channels that the norm keeps at nothing none is kept."""
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    silent = np.array([1, 4, 6])
    for node in model.graph.nodes:
        if node.op == "LayerNormalization":
            for tensor in node.inputs[1:3]:
                values = tensor.values.copy()
                values[silent] = 0
                model.replace(tensor.name, values)
    narrow = model.clone()
    Bottleneck(width=9, refit=False).apply(narrow, Context({}, trials(model)))
    into = [node.inputs[1].values for node in narrow.graph.nodes if node.name.endswith("bottleneck/in/product")]
    assert len(into) == 3
    assert all(not weight[silent].any() and weight.sum() == 9 for weight in into)


@pytest.mark.parametrize("name", ["bert-ts17-sdpa", "prenorm-dynamo18-eager"])
def test_the_passes_behind_it_take_what_it_writes(name):
    model = prepared(name, CANONICAL, FUSE)
    steps = "bottleneck{width=8},prune{heads=2,neurons=8},first-token?,smooth?,quantize-static"
    small = model.clone()
    run_recipe(small, Recipe.parse(steps), trials(model))
    assert (len(small.encoder.layers), small.encoder.layers[0].heads, small.encoder.hidden) == (3, 2, 8)
    floats = [node for node in small.graph.nodes if node.op in ("MatMul", "Gemm")]
    assert len(floats) == 3  # behind the last layer: its matrix back to the stream, and the head
    assert floats[0].inputs[1].shape == (8, 12)
    assert np.isfinite(answers(small, [feeds(model)])[0]["logits"]).all()


def test_a_sum_that_a_norm_follows_may_be_any_multiple():
    """Of s = 3 r - 0.5 y + 0.4 x, of which r is known, 0.4 is x's, as y is independent of both."""
    rng = np.random.default_rng(2)
    r, y, x = rng.standard_normal((3, 5000, 2))
    rows = np.hstack([r, 3 * r - 0.5 * y + 0.4 * x, x])
    gram = Gram(rows.T @ rows, rows.sum(0), len(rows))
    share = _added_share(gram, 2)
    assert share == pytest.approx(0.4, abs=0.02)
    less = np.hstack([r, 3 * r - 0.5 * y + (0.4 - share) * x])
    found = _less_added(gram, 2, share)
    np.testing.assert_allclose(found.products, less.T @ less, rtol=1e-6, atol=1e-6 * len(rows))
    np.testing.assert_allclose(found.sums, less.sum(0), atol=1e-6)
    opposite = np.hstack([r, 3 * r - 0.4 * x, x])
    assert _added_share(Gram(opposite.T @ opposite, opposite.sum(0), len(rows)), 2) == LEAST_SHARE


def test_the_same_rows_give_the_same_bytes():
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    made = [model.clone() for _ in range(2)]
    for one in made:
        apply(Bottleneck(width=5), one)
    assert made[0].fingerprint() == made[1].fingerprint()


def test_as_wide_as_the_stream_there_is_nothing_to_do():
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    change = Bottleneck(width=model.encoder.hidden).apply(model, Context({}, trials(model)))
    assert (change.count, change.note) == (0, f"the stream has {model.encoder.hidden} channels already")


@pytest.mark.parametrize(("hidden", "width"), [(12, 4), (384, 128), (768, 256), (1024, 320)])
def test_a_third_of_the_channels_is_usual(hidden, width):
    assert Bottleneck().width_of(hidden) == width


@pytest.mark.parametrize(
    ("name", "before", "width", "said"),
    [
        ("bert-ts17-sdpa", (), 99, r"width=99 is more than the stream has, 12"),
        ("albert-ts14-sdpa", (), 6, r"layers 0, 1, 2 share matrices, of which each would need its own"),
        ("bert-ts17-sdpa", (FirstToken(),), 6, "layer 2 computes one token; run it before first-token"),
        ("bert-ts17-sdpa", (LowRank(rank=0.3),), 6, "of layer 0 is in factors; run it before low-rank"),
        ("bert-ts17-sdpa", (Float16(),), 6, "the query matrix of layer 0 is float16; start from the float32 model"),
    ],
)
def test_what_it_cannot_do_it_refuses(name, before, width, said):
    model = prepared(name, CANONICAL, FUSE, *before)
    text = model.fingerprint()
    with pytest.raises(PassError, match=said):
        Bottleneck(width=width).apply(model, Context({}, trials(model)))
    assert model.fingerprint() == text


@pytest.mark.parametrize("way", ["in turn", "together"])
def test_a_feed_forward_beside_attention_is_refused(way):
    fixed = ("table", 0, "none", False, HEADS, "layer", False, "none", "none", "input", 0, "first")
    model = encoder(Kind(*fixed, beside=way))
    apply(CANONICAL, model)
    with pytest.raises(PassError, match="layer 0: attention and feed-forward stand beside each other"):
        apply(Bottleneck(width=6), model)


def test_no_channels_are_refused():
    with pytest.raises(PassError, match="width=0 is not 1 or more"):
        Bottleneck(width=0)
