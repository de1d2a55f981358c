"""Smoothing moves scales about and leaves the float model what it was; int8 comes nearer to it."""

from collections import Counter

import numpy as np
import pytest
from graphs import EXPORTS, SOME, apply, batches, every_padding, feeds, prepared
from int8_oracles import assert_runs_in_integers, linears_of
from oracles import answers, assert_same_answers, matrix

from onnxslim_bert.calibration.collect import collect
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.dense import group_sites
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.smooth import Smooth
from onnxslim_bert.rewriting.int8.error import choose_scales, product_error
from onnxslim_bert.rewriting.int8.quantizers import activation_quantizer, quantize_columns

CANONICAL, FUSE, STANDARD = Canonicalize(), Fuse(), Fuse(style="standard")
SMOOTH, STATIC = Smooth(), QuantizeStatic()
CHANNEL, FACTOR = 3, 30


def with_outliers(name: str, style: Fuse = FUSE) -> Model:
    """The fused fixture with one large channel wherever a dense layer reads a norm, an attention or a GELU."""
    model = prepared(name, CANONICAL, style)
    names = [node.inputs[1].name for node in model.graph.nodes if node.op == "LayerNormalization"]
    for layer in model.encoder.layers:
        names += [linear.bias for linear in (layer.value, layer.up)]
    for constant in dict.fromkeys(names):
        values = model.array(constant).copy()
        values[CHANNEL] = FACTOR * (0.5 + np.abs(values[CHANNEL]))
        model.replace(constant, values)
    model.changed()
    return model


def int8_error(model: Model, linear: Linear) -> float:
    """The squared error of a layer's int8 product on calibration rows."""
    wants = [Want(linear.source, kind) for kind in ("sample", "channel-range")]
    rows, spanned = collect(model, wants, batches(model)).values()
    weight = matrix(model, linear)
    return product_error(rows, spanned, weight, rows @ weight)


def operators(model: Model) -> Counter[str]:
    return Counter(node.op for node in model.graph.nodes)


@pytest.mark.parametrize("style", [FUSE, STANDARD], ids=str)
@pytest.mark.parametrize("name", SOME)
def test_the_float_model_answers_the_same(name, style):
    """To 1e-4 of what it answers, on every padding, with every input smoothed that can be."""
    exact = with_outliers(name, style)
    model = exact.clone()
    change = apply(SMOOTH, model)
    assert change.count == len(change.details) > 0
    given = every_padding(exact)
    for ours, theirs in zip(answers(model, given), answers(exact, given), strict=True):
        np.testing.assert_allclose(ours["logits"], theirs["logits"], atol=1e-4 * np.abs(theirs["logits"]).max())


@pytest.mark.parametrize("name", ["bert-ts13-eager", "distilbert-dynamo20-sdpa", "prenorm-dynamo18-eager"])
def test_every_smoothed_product_loses_less_in_int8(name):
    """The squared error of each layer's int8 product, on the rows that calibration sampled before and after."""
    exact = with_outliers(name)
    model = exact.clone()
    change = apply(SMOOTH, model)
    smoothed = 0
    for before, after in zip(exact.encoder.layers, model.encoder.layers, strict=True):
        for role in ("output", "up", "down"):
            if before.linears[role].node in change.details:
                assert int8_error(model, after.linears[role]) < int8_error(exact, before.linears[role]), role
                smoothed += 1
    assert smoothed >= 3
    apply(STATIC, model)
    assert_runs_in_integers(model)


@pytest.mark.parametrize("name", SOME)
def test_attention_s_scales_fold_into_value(name):
    """Nothing is added between the attention and its output; value's columns and output's rows change inversely."""
    exact = with_outliers(name)
    model = exact.clone()
    change = apply(SMOOTH, model)
    for layer, before in zip(model.encoder.layers, exact.encoder.layers, strict=True):
        assert layer.output.source == layer.context == before.context
        if layer.output.node not in change.details:
            continue
        columns = matrix(exact, before.value) / matrix(model, layer.value)
        rows = matrix(model, layer.output) / matrix(exact, before.output)
        scales = np.median(rows, axis=1)
        np.testing.assert_allclose(rows, np.broadcast_to(scales[:, None], rows.shape), rtol=1e-4)
        if "prenorm" not in name and "albert" not in name:  # there value's rows have scales of their own
            biases = [m.array(value.bias) for m, value in ((model, layer.value), (exact, before.value))]
            np.testing.assert_allclose(biases[0] * scales, biases[1], rtol=1e-4)
            ratio = columns / scales[None, :]
            np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-4)


def test_a_norm_that_only_dense_layers_read_takes_the_scales():
    """Pre-norm: gamma and beta are divided, and no Mul is added but for GELU."""
    exact = with_outliers("prenorm-dynamo18-eager")
    model = exact.clone()
    change = apply(SMOOTH, model)
    before, after = ({n.name: n for n in m.graph.nodes if n.op == "LayerNormalization"} for m in (exact, model))
    tensors = model.graph.tensors()
    for layer in model.encoder.layers:
        for linear in (layer.query, layer.up):
            assert linear.node in change.details
            norm = tensors[linear.source].inputs[0]
            assert norm.op == "LayerNormalization"
            gammas, betas = ([n[norm.name].inputs[i].values for n in (before, after)] for i in (1, 2))
            np.testing.assert_allclose(gammas[0] * betas[1], gammas[1] * betas[0], rtol=1e-4, atol=1e-5)
            assert np.ptp(gammas[0] / gammas[1]) > 0.1
    added = operators(model)["Mul"] - operators(exact)["Mul"]
    assert added <= 3
    assert f"{added} of them by a Mul" in change.note


def test_a_norm_whose_gamma_is_computed_keeps_it():
    """As where a file stores it as int8 behind Cast and Mul."""
    model = with_outliers("prenorm-dynamo18-eager")
    for node in [node for node in model.graph.nodes if node.op == "LayerNormalization"]:
        build = Builder(model.graph, "computed")
        ones = build.constant("ones", np.ones_like(node.inputs[1].values))
        node.inputs[1] = build.node("Mul", "gamma", [node.inputs[1], ones])
    model.changed()
    exact = model.clone()
    change = apply(SMOOTH, model)
    assert f"{operators(model)['Mul'] - operators(exact)['Mul']} of them by a Mul" in change.note
    given = [feeds(model, 3, 7)]
    assert_same_answers(answers(model, given)[0], answers(exact, given)[0], 1e-4)


def test_a_residual_keeps_the_norm_as_it_is():
    """Post-norm: the residual reads the norm too, so that a Mul carries the scales; one for query, key and value."""
    exact = with_outliers("bert-dynamo18-eager")
    model = exact.clone()
    apply(SMOOTH, model)
    for m in (exact, model):
        assert [n.inputs[1].values.tolist() for n in m.graph.nodes if n.op == "LayerNormalization"] == [
            n.inputs[1].values.tolist() for n in exact.graph.nodes if n.op == "LayerNormalization"
        ]
    for layer in model.encoder.layers:
        assert layer.query.source == layer.key.source == layer.value.source
        assert model.graph.tensors()[layer.query.source].inputs[0].op == "Mul"
    assert operators(model)["Mul"] > operators(exact)["Mul"]


@pytest.mark.parametrize("export", EXPORTS)
def test_albert_s_weights_stay_shared(export):
    """One scale for all the layers that share a weight, and one weight still."""
    model = with_outliers(f"albert-{export}")
    assert apply(SMOOTH, model)
    for role in model.encoder.layers[0].linears:
        assert len({layer.linears[role].weight for layer in model.encoder.layers}) == 1
    assert len({layer.value.bias for layer in model.encoder.layers}) == 1
    matrices = [c.values for c in model.constants().values() if c.values.ndim == 2 and c.values.dtype == np.float32]
    assert sorted(m.shape for m in matrices).count((12, 12)) == 5  # query, key, value, output and the pooler


def test_gain_decides_whether_a_mul_pays():
    """With a gain that nothing reaches, only scales that fold are left."""
    model = with_outliers("bert-dynamo18-eager")
    before = operators(model)
    change = apply(Smooth(gain=1e-9), model)
    assert "0 of them by a Mul" in change.note
    assert operators(model) == before


def test_a_second_time_changes_little_or_nothing():
    """What is smooth is not smoothed without end: no Mul is put upon a Mul for the same layer."""
    model = with_outliers("bert-dynamo18-eager")
    apply(SMOOTH, model)
    muls = operators(model)["Mul"]
    apply(SMOOTH, model)
    assert operators(model)["Mul"] <= muls + 1


def test_an_int8_model_is_refused():
    with pytest.raises(PassError, match="quantized already"):
        apply(SMOOTH, prepared("bert-ts17-eager", CANONICAL, FUSE, STATIC))


def test_wants_name_every_input_once():
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    wants = list(SMOOTH.wants(model))
    assert len(wants) == len(set(wants))
    assert {want.tensor for want in wants} == {linear.source for linear in linears_of(model)}


# the decision: numbers in, scales out


def sampled(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rows [97, 7], their ranges [2, 7] and a weight [7, 5]."""
    rng = np.random.default_rng(seed)
    rows, weight = rng.normal(size=(97, 7)).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32)
    return rows, np.stack([rows.min(0), rows.max(0)]), weight


def test_the_error_is_that_of_the_integers_product():
    rows, spanned, weight = sampled()
    scales = np.array([1, 2, 0.5, 3, 1, 1, 4], np.float32)
    smooth_rows, smooth_weight = rows / scales, weight * scales[:, None]
    scale, zero_point = activation_quantizer(smooth_rows.min(), smooth_rows.max())
    levels = np.clip(np.rint(smooth_rows / scale) + float(zero_point), 0, 255) - float(zero_point)
    integers, columns = quantize_columns(smooth_weight)
    expected = np.square((levels @ integers.astype(np.float64)) * (scale * columns) - rows @ weight).sum()
    assert product_error(rows, spanned, weight, rows @ weight, scales) == pytest.approx(expected, rel=1e-3)


def test_an_outlier_gets_the_largest_scale():
    rows, spanned, weight = sampled()
    rows[:, 4] *= 50
    spanned[:, 4] *= 50
    strength, scales, error = choose_scales(rows, spanned, [weight], 1.0)
    assert strength > 0
    assert np.argmax(scales) == 4
    assert error < 0.5 * product_error(rows, spanned, weight, rows @ weight)
    assert np.exp(np.log(scales).mean()) == pytest.approx(1, rel=1e-4)


def test_no_scales_when_none_pays():
    """The plain product's error comes back with 0 and None."""
    rows, spanned, weight = sampled()
    strength, scales, error = choose_scales(rows, spanned, [weight], 1e-6)
    assert (strength, scales) == (0.0, None)
    assert error == pytest.approx(product_error(rows, spanned, weight, rows @ weight))


def test_a_dead_channel_keeps_finite_scales():
    """Zero in every row, zero in every weight."""
    rows, spanned, weight = sampled()
    rows[:, 2] = spanned[:, 2] = weight[5] = 0
    rows[:, 4] *= 50
    spanned[:, 4] *= 50
    _, scales, _ = choose_scales(rows, spanned, [weight], 1.0)
    assert np.isfinite(scales).all()
    assert (scales > 0).all()


def test_sites_that_share_a_weight_are_one_group():
    """Layers a and c share w; b reads what a reads; d stands alone."""
    a, b, c, d = (
        Linear(node, weight, None, 3, 5, source, f"{node}/y")
        for node, weight, source in (("a", "w", "x"), ("b", "v", "x"), ("c", "w", "z"), ("d", "u", "t"))
    )
    assert group_sites([a, b, c, d]) == [[[a, b], [c]], [[d]]]
    assert group_sites([d, c, b, a]) == [[[d]], [[c], [b, a]]]
