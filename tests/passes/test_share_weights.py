"""Equal weights are stored once, exactly; layers that are made to share use one set of matrices, quantized too."""

from collections import Counter

import numpy as np
import pytest
from graphs import DISTINCT, SOME, apply, every_padding, prepared, trials
from int8_oracles import INTEGER_PRODUCTS, linears_of, stored
from oracles import answers, assert_same_answers, assert_same_outputs, optimized
from random_encoders import HEADS, Kind, encoder

from onnxslim_bert.errors import DataError, PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.share_weights import ROLES, ShareWeights, measured
from onnxslim_bert.passes.smooth import Smooth
from onnxslim_bert.passes.split_outliers import SplitOutliers
from onnxslim_bert.recipes.recipe import Recipe, Step
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.contract import Context, Pass
from onnxslim_bert.rewriting.pruning.sites import find_sites
from onnxslim_bert.rewriting.pruning.surgery import keep_units, set_dense
from onnxslim_bert.rewriting.weights.sharing_order import align

CANONICAL, FUSE, STANDARD, FIRST = Canonicalize(), Fuse(), Fuse(style="standard"), FirstToken()
TIED = ("bert-mlm", "bert-mlm-tied")
EVERY_KIND = Kind("none", 0, "none", False, HEADS, "layer", False, "none", "none", "input", 0, "states")
QUANTIZE = [kind(format=form) for kind in (QuantizeStatic, QuantizeDynamic) for form in ("contrib", "qdq")]


def fused(name: str, quantize: Pass) -> Model:
    """The fixture in the form that `quantize` is used on."""
    return prepared(name, CANONICAL, FUSE if quantize.format == "contrib" else STANDARD)


def nbytes(model: Model) -> int:
    return len(model.proto().SerializeToString())


# exact


def assert_same_bits(model: Model, before: Model) -> None:
    """Both as ONNX Runtime optimizes them."""
    for ours, theirs in zip(*(answers(m, every_padding(m)) for m in (model, before)), strict=True):
        assert_same_answers(ours, theirs, 0)


@pytest.mark.parametrize("name", [*SOME, *TIED])
@pytest.mark.parametrize("steps", [(), (CANONICAL, FUSE, FIRST)], ids=["as exported", "fused"])
def test_storing_once_changes_no_bit_and_no_file_grows(name, steps):
    before = prepared(name, *steps)
    model = before.clone()
    apply(ShareWeights(), model)
    assert_same_bits(model, before)
    assert nbytes(model) <= nbytes(before)
    assert not apply(ShareWeights(), model)


@pytest.mark.full_range
@pytest.mark.parametrize("quantize", [None, *QUANTIZE], ids=str)
@pytest.mark.parametrize("name", TIED)
def test_a_decoder_tied_to_the_word_table_is_stored_once_and_costs_no_time(name, quantize):
    """In float and in int8, whatever the format; ONNX Runtime makes the graph of it that it made before."""
    before = prepared(name, CANONICAL, FUSE) if quantize is None else fused(name, quantize)
    if quantize is not None:
        apply(quantize, before)
    model = before.clone()
    change = apply(ShareWeights(), model)
    assert "and 1 transposed constants gone" in change.note
    assert_same_bits(model, before)
    size = 37 * 12 * (4 if quantize is None else 1)
    assert nbytes(before) - nbytes(model) > size - 120
    tables = [c for c in model.constants().values() if c.values.size == 37 * 12]
    assert [c.values.shape for c in tables] == [(37, 12)]
    operators, operators_before = (Counter(node.op_type for node in optimized(m).node) for m in (model, before))
    assert operators == operators_before


def test_where_nothing_is_stored_twice_nothing_changes_and_that_is_said():
    model = prepared("bert-dynamo18-eager", CANONICAL, FUSE)
    before = model.fingerprint()
    change = apply(ShareWeights(), model)
    assert (bool(change), change.note) == (False, "every weight is stored once already")
    assert model.fingerprint() == before


def test_a_negative_zero_is_not_a_zero():
    """Equal as numbers, but another sign would come out of a division."""
    model = prepared("bert-mlm", CANONICAL)
    table = model.array(model.encoder.embeddings.word).copy()
    table[3, 5] = 0.0
    model.replace(model.encoder.embeddings.word, table)
    head = table.T.copy()
    head[5, 3] = -0.0
    model.replace(model.encoder.head[-1].weight, head)
    assert not apply(ShareWeights(), model)


# layers that share


@pytest.mark.parametrize("name", DISTINCT)
def test_other_places_for_heads_and_neurons_change_nothing(name):
    """Every layer in the order of the first: the model answers what it did."""
    before = prepared(name, CANONICAL)
    model = before.clone()
    layers = model.encoder.layers
    first, *others = measured(model, Context(measured=trials(model)), layers, ROLES["all"])
    build = Builder(model.graph, "reordered")
    for layer, other in zip(layers[1:], others, strict=True):
        aligned = align(first, other, layer.heads)
        if not name.startswith("albert"):
            assert not np.array_equal(aligned["down"].weight, other["down"].weight)
        for role, linear in layer.linears.items():
            set_dense(model, build, linear, aligned[role].weight.astype(np.float32), aligned[role].bias)
    model.changed()
    assert_same_outputs(model, before, every_padding(model)[:2], atol=1e-5)


@pytest.mark.parametrize("steps", [(CANONICAL,), (CANONICAL, FUSE, FIRST)], ids=["plain", "fused"])
@pytest.mark.parametrize("name", [name for name in SOME if not name.startswith("albert")])
def test_layers_that_differ_in_order_alone_share_without_loss(name, steps):
    """Each layer computes what the first does, with its neurons and heads placed as its own were."""
    before = prepared(name, *steps)
    layers = before.encoder.layers
    first, *others = measured(before, Context(measured=trials(before)), layers, ROLES["all"])
    build = Builder(before.graph, "copied")
    for layer, other in zip(layers[1:], others, strict=True):
        for role, dense in align(other, first, layer.heads).items():
            set_dense(before, build, layer.linears[role], dense.weight.astype(np.float32), dense.bias)
    before.changed()
    model = before.clone()
    change = apply(ShareWeights(groups=1), model)
    assert max(error for roles in change.details["relative error"].values() for error in roles.values()) < 1e-3
    assert len(matrices(model)) == 6
    assert_same_outputs(model, before, every_padding(model), atol=1e-4)


def matrices(model: Model) -> set[str]:
    return {linear.weight for layer in model.encoder.layers for linear in layer.linears.values()}


@pytest.mark.parametrize("roles", ROLES)
@pytest.mark.parametrize("name", [name for name in SOME if not name.startswith("albert")])
def test_a_group_has_one_matrix_for_each_role(name, roles):
    """Layers 0 and 1 share, layer 2 is left alone; biases are each layer's own."""
    model = prepared(name, CANONICAL, FUSE)
    before = model.clone()
    change = apply(ShareWeights(groups=2, roles=roles), model)
    layers, layers_before = model.encoder.layers, before.encoder.layers
    for role in layers[0].linears:
        weights, biases = ([getattr(layer.linears[role], part) for layer in layers] for part in ("weight", "bias"))
        assert (weights[0] == weights[1]) == (role in ROLES[roles]), role
        assert weights[2] not in weights[:2]
        assert biases[0] != biases[1]
        np.testing.assert_array_equal(model.array(weights[2]), before.array(layers_before[2].linears[role].weight))
    errors = change.details["relative error"]
    assert list(errors) == [0, 1]
    assert all(list(of_layer) == list(ROLES[roles]) and min(of_layer.values()) > 0.01 for of_layer in errors.values())
    saved = sum(before.array(layers_before[0].linears[role].weight).nbytes for role in ROLES[roles])
    assert nbytes(before) - nbytes(model) > 0.95 * saved


def test_the_mean_of_what_a_layer_gives_stays():
    """In the first layer, whose input is what it was."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    before = model.clone()
    apply(ShareWeights(groups=1, roles="attention"), model)
    means = []
    for m in (model, before):
        result, *_ = measured(m, Context(measured=trials(m)), m.encoder.layers[:1], ("query", "key", "value"))
        means.append([dense.mean @ dense.weight + dense.bias for dense in result.values()])
    np.testing.assert_allclose(*means, atol=1e-4)


@pytest.mark.parametrize("between", [(), (SplitOutliers(), Smooth(gain=1.0))], ids=["alone", "smooth"])
@pytest.mark.parametrize("quantize", QUANTIZE, ids=str)
def test_a_shared_matrix_is_quantized_once(quantize, between):
    """One int8 tensor and one tensor of scales for each role and group, and the products run in integers."""
    model = fused("bert-dynamo18-eager", quantize)
    apply(ShareWeights(groups=2), model)
    for step in between:
        apply(step, model)
    float_model = model.clone()
    apply(quantize, model)
    assert len(matrices(float_model)) == len(matrices(model)) == 12
    pairs = {(linear.weight, id(stored_scales(model, linear))) for linear in linears_of(model)}
    assert len(pairs) == 12
    shapes = {linear.weight: (linear.d_in, linear.d_out) for linear in linears_of(model)}
    integers = [c.values.shape for c in model.constants().values() if c.values.dtype == np.int8]
    tables = [model.array(name).shape for name in model.encoder.embeddings.tables.values()]
    assert Counter(integers) == Counter([*shapes.values(), *tables])
    assert sum(node.op_type in INTEGER_PRODUCTS for node in optimized(model).node) == 18


def stored_scales(model: Model, linear) -> np.ndarray:
    return stored(model, linear)[1]


@pytest.mark.parametrize("name", ["bert-dynamo18-eager", "prenorm-dynamo18-eager"])
def test_smoothing_keeps_shared_matrices_shared_and_answers(name):
    model = prepared(name, CANONICAL, FUSE)
    apply(ShareWeights(groups=2), model)
    before = model.clone()
    assert apply(Smooth(gain=1.0), model)
    assert len(matrices(model)) == 12
    assert_same_outputs(model, before, every_padding(model), atol=2e-5)


# nothing to do, and what cannot be


@pytest.mark.parametrize(("name", "groups"), [("albert-ts14-sdpa", 1), ("bert-ts17-eager", 3)])
def test_layers_that_share_already_are_left_and_that_is_said(name, groups):
    """ALBERT's; and groups of one layer each."""
    model = prepared(name, CANONICAL, FUSE)
    before = model.fingerprint()
    change = apply(ShareWeights(groups=groups), model)
    assert not change
    assert change.note == f"in {groups} groups, no layers are left that do not share their matrices already"
    assert model.fingerprint() == before


@pytest.mark.parametrize(
    "changed",
    [{}, {"rotary": True}, {"bias": "table"}, {"groups": 2}, {"window": 3}, {"packing": "three", "rotary": True}],
    ids=str,
)
def test_layers_with_any_attention_share_what_is_equal(changed):
    """Heads that relative positions tell apart keep their places. Stored twice before, once after; no answer moves."""
    kind = Kind(**(vars(EVERY_KIND) | changed))
    model = encoder(kind)
    CANONICAL.apply(model, Context())
    first, second = model.encoder.layers
    for role, linear in second.linears.items():
        for ours, theirs in ((linear.weight, first.linears[role].weight), (linear.bias, first.linears[role].bias)):
            if ours is not None and theirs is not None:
                model.replace(ours, model.array(theirs).copy())
    before = model.clone()
    assert apply(ShareWeights(groups=1), model).count == 2
    for role, linear in model.encoder.layers[1].linears.items():
        assert linear.weight == model.encoder.layers[0].linears[role].weight
    assert_same_outputs(model, before, every_padding(model), atol=2e-2)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"groups": -1}, "groups=-1 is negative"),
        ({"groups": 2, "roles": "heads"}, "roles='heads' is not one of all, attention, ffn"),
        ({"groups": 2, "ridge": 0}, "ridge=0 is not above 0"),
    ],
)
def test_options_out_of_range_are_refused(options, reason):
    with pytest.raises(PassError, match=reason):
        ShareWeights(**options)


def narrowed(name: str) -> Model:
    """Three neurons fewer in layer 1."""
    model = prepared(name, CANONICAL, FUSE)
    keep_units(model, find_sites(model, "neurons")[1], np.arange(17))
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: prepared("bert-ts17-eager", CANONICAL, FUSE), "groups=4 is more than there are layers, 3"),
        (lambda: prepared("bert-ts17-eager", CANONICAL, FUSE, Float16()), "float16; start from the float32 model"),
        (lambda: prepared("bert-ts17-eager", CANONICAL, FUSE, QuantizeDynamic()), "int8; start from the float32 model"),
        (lambda: narrowed("bert-ts17-eager"), "layer 1: up is 12x17, and in layer 0 12x20; layers that share need"),
    ],
    ids=["groups", "float16", "int8", "widths"],
)
def test_what_cannot_share_is_refused(model, reason):
    made = model()
    groups = 4 if "groups=4" in reason else 1
    with pytest.raises(PassError, match=reason):
        apply(ShareWeights(groups=groups), made)


def test_groups_need_calibration_and_the_exact_part_does_not():
    model = prepared("bert-mlm", CANONICAL)
    run_recipe(model, Recipe((Step(ShareWeights()),)))
    with pytest.raises(DataError, match="share-weights needs calibration data"):
        run_recipe(model, Recipe((Step(ShareWeights(groups=1)),)))
