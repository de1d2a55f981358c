"""Pairs of products in 16 bits: what they lose is told exactly, and a reduced range loses nothing."""

import numpy as np
import pytest
from graphs import SOME, apply, prepared, trials
from oracles import matrix

from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.quantize_weights import QuantizeWeights
from onnxslim_bert.rewriting.int8.quantizers import pair_scales, quantize_columns
from onnxslim_bert.rewriting.int8.saturation import can_saturate, find_saturation, lost_in_pairs

pytestmark = pytest.mark.full_range

CANONICAL, FUSE, STANDARD = Canonicalize(), Fuse(), Fuse(style="standard")
FORMS = {
    "contrib": (CANONICAL, FUSE, QuantizeStatic()),
    "qdq": (CANONICAL, STANDARD, QuantizeStatic(format="qdq")),
    "dynamic": (CANONICAL, FUSE, QuantizeDynamic()),
}


def saturating_product(levels, weight):
    """What VPMADDUBSW and VPMADDWD compute, number by number."""
    product = np.zeros((len(levels), weight.shape[1]), np.int64)
    for row, level in enumerate(levels.tolist()):
        for column, weights in enumerate(weight.T.tolist()):
            terms = [a * b for a, b in zip(level, weights, strict=True)] + [0] * (len(level) % 2)
            pairs = zip(terms[::2], terms[1::2], strict=True)
            product[row, column] = sum(min(max(a + b, -32768), 32767) for a, b in pairs)
    return product


@pytest.mark.parametrize("d_in", [1, 6, 7])
def test_what_is_lost_is_what_saturating_arithmetic_loses(d_in):
    """Integers of the whole range, odd sizes included; and as many sums are hit as that says."""
    rng = np.random.default_rng(d_in)
    levels = rng.integers(0, 256, (5, d_in)).astype(np.uint8)
    weight = rng.integers(-127, 128, (d_in, 3)).astype(np.int8)
    lost, count = lost_in_pairs(levels, weight, can_saturate(weight))
    exact = levels.astype(np.int64) @ weight
    np.testing.assert_array_equal(exact - lost, saturating_product(levels, weight))
    assert (count > 0) == bool(lost.any())


@pytest.mark.parametrize(
    ("pair", "saturates"),
    [((64, 64), False), ((65, 64), True), ((-64, -64), False), ((-65, -64), True), ((127, -127), False), ((127, 2), 1)],
)
def test_a_pair_saturates_from_the_sum_of_129(pair, saturates):
    """255 * 128 fits 16 bits; of opposite signs one can be silent."""
    assert can_saturate(np.array(pair, np.int8)[:, None]).tolist() == [[bool(saturates)]]


@pytest.mark.parametrize("seed", range(5))
def test_a_reduced_range_cannot_saturate(seed):
    """And takes no more of the range than a pair needs: each value within half a step, at most twice the step."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_t(3, (2 * seed + 3, 11)).astype(np.float32)
    integers, scales = quantize_columns(weight, reduce_range=True)
    assert not can_saturate(integers).any()
    assert (np.abs(integers * scales - weight) <= scales / 2 * (1 + 1e-5)).all()
    full = quantize_columns(weight)[1]
    assert ((full <= scales) & (scales <= full * 127 / 63)).all()
    lonely = weight.copy()
    lonely[1::2] = 0
    np.testing.assert_array_equal(pair_scales(lonely), quantize_columns(lonely)[1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SOME)
def test_every_layer_is_judged(name, form):
    """The weights' pairs that can saturate are counted, in every format; nothing is lost where nothing was seen."""
    model = prepared(name, *FORMS[form])
    found = find_saturation(model, trials(model))
    projection = [model.encoder.embeddings.projection] if model.encoder.embeddings.projection else []
    linears = [*projection, *(linear for layer in model.encoder.layers for linear in layer.linears.values())]
    expected = [can_saturate(matrix(model, linear)) for linear in linears]
    assert [(x.pairs, x.possible) for x in found] == [(pairs.size, pairs.sum()) for pairs in expected]
    assert sum(x.possible for x in found)
    assert all((x.seen > 0) == (x.loss > 0) for x in found)
    assert all(0 <= x.seen <= x.possible / x.pairs for x in found)


def test_a_loss_is_found_and_avoided():
    """One pair of large weights of one sign under large inputs costs more than a twentieth of the product."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    layer = model.encoder.layers[1]
    weight = model.array(layer.down.weight).copy()
    weight[:2] = 3 * np.abs(weight).max()  # 127 and 127: with GELU's largest values beyond 16 bits
    up = model.array(layer.up.bias).copy()
    up[:2] += 5
    model.replace(layer.down.weight, weight)
    model.replace(layer.up.bias, up)
    losses = {}
    for reduced in (False, True):
        quantized = model.clone()
        apply(QuantizeStatic(reduce_range=reduced), quantized)
        losses[reduced] = {x.node: x.loss for x in find_saturation(quantized, trials(model))}
    down = next(node for node in losses[False] if layer.down.node in node)
    assert losses[False][down] > 0.05
    assert set(losses[True].values()) == {0.0}


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("form", ["contrib", "qdq"])
def test_a_model_with_a_reduced_range_cannot_saturate(name, form):
    style = FUSE if form == "contrib" else STANDARD
    model = prepared(name, CANONICAL, style, QuantizeStatic(format=form, reduce_range=True))
    found = find_saturation(model, trials(model))
    assert found
    assert not any(x.possible for x in found)


@pytest.mark.parametrize("steps", [(), (QuantizeWeights(),)], ids=["float", "weights alone"])
def test_models_that_multiply_floats_have_nothing_to_judge(steps):
    model = prepared("bert-ts17-eager", CANONICAL, STANDARD, *steps)
    assert find_saturation(model, trials(model)) == []
