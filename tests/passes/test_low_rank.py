"""Two thin matrices in place of one: as near to its products on calibration rows as their rank allows."""

import numpy as np
import pytest
from graphs import DISTINCT, SOME, apply, batches, every_padding, prepared, trials
from int8_oracles import INTEGER_PRODUCTS
from oracles import assert_same_outputs, matrix, optimized, values_of

from onnxslim_bert.calibration.collect import real_rows
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.inspection.flops import flops_by_part
from onnxslim_bert.inspection.parts import part_of_nodes
from onnxslim_bert.model.dense import dense_layers
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.low_rank import LowRank
from onnxslim_bert.passes.prune import Prune
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.smooth import Smooth
from onnxslim_bert.passes.split_outliers import SplitOutliers
from onnxslim_bert.passes.unpad import Unpad

CANONICAL, FUSE = Canonicalize(), Fuse()
ROLES = ["query", "key", "value", "output", "up", "down"]
ALWAYS = 9.0  # `pays` with which factors are written although they save nothing
FULL, HALF = LowRank(rank=1, pays=ALWAYS), LowRank(rank=0.5, pays=ALWAYS)


def rows_of(model: Model, *names: str) -> np.ndarray:
    """The calibration rows [tokens, channels] of tensors, one below the other."""
    held = [(values_of(model, names, b.feeds), b.mask) for b in batches(model)]
    return np.concatenate([real_rows(values, mask) for given, mask in held for values in given]).astype(np.float64)


@pytest.mark.parametrize("name", DISTINCT)
def test_the_full_rank_answers_the_same(name):
    before = prepared(name, CANONICAL)
    model = prepared(name, CANONICAL, FULL)
    assert_same_outputs(model, before, every_padding(model), atol=1e-5)
    assert all(len(linear.factors) == 2 for layer in model.encoder.layers for linear in layer.linears.values())


@pytest.mark.parametrize("name", SOME)
def test_the_encoder_is_found_as_before(name):
    """Widths, heads and what attention computes; the factors are one layer with two matrices."""
    before = prepared(name, CANONICAL)
    model = prepared(name, CANONICAL, HALF)
    assert model.encoder.hidden == before.encoder.hidden
    assert model.encoder.embeddings == before.encoder.embeddings
    for layer, old in zip(model.encoder.layers, before.encoder.layers, strict=True):
        assert list(layer.linears) == ROLES
        assert (layer.heads, layer.head_dim) == (old.heads, old.head_dim)
        assert (layer.form is None, layer.form and layer.form.mask) == (old.form is None, old.form and old.form.mask)
        for role, linear in layer.linears.items():
            left, right = linear.factors
            assert (linear.d_in, linear.d_out) == (old.linears[role].d_in, old.linears[role].d_out)
            assert (left.d_in, left.d_out, right.d_in, right.d_out) == (linear.d_in, 6, 6, linear.d_out)
            assert (linear.source, linear.node, linear.bias) == (left.source, right.node, right.bias)
        assert len({layer.linears[role].factors[0].node for role in ROLES[:3]}) == 1, "query, key and value share one"


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("role", ["output", "down"])
def test_the_error_on_calibration_rows_is_the_tail_of_the_singular_values(name, role):
    before = prepared(name, CANONICAL)
    model = prepared(name, CANONICAL, HALF)
    layers = [layer.linears[role] for layer in before.encoder.layers]
    shared = [x for x in layers if x.weight == layers[0].weight]  # all of them in ALBERT
    rows = rows_of(before, *(linear.source for linear in shared))
    rows -= rows.mean(0)
    weight = matrix(before, layers[0]).astype(np.float64)
    left, right = (matrix(model, factor) for factor in model.encoder.layers[0].linears[role].factors)
    error = np.linalg.norm(rows @ weight - rows @ left @ right)
    values = np.linalg.svd(rows @ weight, compute_uv=False)
    assert error == pytest.approx(np.linalg.norm(values[6:]), rel=1e-3)
    u, s, vt = np.linalg.svd(weight)
    assert error < np.linalg.norm(rows @ weight - rows @ u[:, :6] * s[:6] @ vt[:6])


@pytest.mark.parametrize("name", ["bert-ts17-eager", "albert-dynamo18-sdpa"])
def test_the_mean_of_every_product_is_kept(name):
    """The means of the first layer's results, whose inputs no other factor has touched."""
    before, model = prepared(name, CANONICAL), prepared(name, CANONICAL, LowRank(rank=0.25, pays=ALWAYS))
    for role in ("query", "key", "value"):
        layers = [[layer.linears[role] for layer in m.encoder.layers] for m in (before, model)]
        rows = rows_of(before, *(linear.source for linear in (layers[0] if "albert" in name else layers[0][:1])))
        old, new = layers[0][0], layers[1][0]
        left, right = (matrix(model, factor) for factor in new.factors)
        exact = rows @ matrix(before, old) + before.array(old.bias)
        np.testing.assert_allclose(
            (rows @ left @ right + model.array(new.bias)).mean(0), exact.mean(0), atol=1e-4, err_msg=role
        )


def test_query_key_and_value_count_the_same():
    """However large one of them is: multiplied by a thousand it would have taken all of a common rank."""
    model = prepared("bert-ts17-eager", CANONICAL)
    query = model.encoder.layers[0].query
    model.replace(query.weight, model.array(query.weight) * 1000)
    before = model.clone()
    apply(LowRank(rank=0.75, pays=ALWAYS), model)
    rows = rows_of(before, query.source)
    rows -= rows.mean(0)
    lost = []
    for role in ROLES[:3]:
        left, right = (matrix(model, factor) for factor in model.encoder.layers[0].linears[role].factors)
        exact = rows @ matrix(before, before.encoder.layers[0].linears[role])
        lost.append(np.linalg.norm(rows @ left @ right - exact) / np.linalg.norm(exact))
    assert max(lost) < 2.5 * min(lost)


def test_matrices_that_layers_share_stay_shared():
    """ALBERT: one left and one right for a role, fitted on the inputs of all layers."""
    model = prepared("albert-ts17-eager", CANONICAL, HALF)
    for role in ROLES:
        for i in (0, 1):
            assert len({layer.linears[role].factors[i].weight for layer in model.encoder.layers}) == 1
    before = prepared("albert-ts17-eager", CANONICAL)
    stored = [sum(c.values.ndim == 2 for c in m.constants().values()) for m in (before, model)]
    assert stored[1] - stored[0] == 4  # six rights and four lefts, one of them shared by three, for six matrices


@pytest.mark.parametrize(("roles", "taken"), [("all", ROLES), ("attention", ROLES[:4]), ("ffn", ROLES[4:])])
def test_roles_choose_the_layers(roles, taken):
    model = prepared("bert-ts17-eager", CANONICAL)
    change = apply(LowRank(rank=0.5, pays=ALWAYS, roles=roles), model)
    assert change.count == 3 * len(taken)
    for layer in model.encoder.layers:
        assert [role for role, linear in layer.linears.items() if linear.factors] == taken


def test_keep_gives_each_layer_the_least_rank_that_keeps_it():
    """Of the mean channel's variance on calibration rows."""
    before = prepared("bert-ts17-eager", CANONICAL)
    model = prepared("bert-ts17-eager", CANONICAL, LowRank(keep=0.8, pays=ALWAYS))
    for old, new in zip(before.encoder.layers, model.encoder.layers, strict=True):
        rows = rows_of(before, old.down.source)
        exact = (rows - rows.mean(0)) @ matrix(before, old.down)
        axes = np.linalg.svd(exact)[2].T
        rank = new.down.factors[0].d_out
        less, enough = (
            (np.square(exact @ axes[:, :r] @ axes[:, :r].T).sum(0) / np.square(exact).sum(0)).mean()
            for r in (rank - 1, rank)
        )
        assert less < 0.8 <= enough


def test_a_layer_where_it_does_not_pay_stays_whole_and_is_told():
    """Rank 6 of 12 halves the work of a stack of three (12 -> 36), leaves that of `output`, saves a quarter of `up`."""
    model = prepared("bert-ts17-eager", CANONICAL)
    change = apply(LowRank(rank=0.5, pays=0.7), model)
    reason = "9 matrices left whole: factors would leave 0.80 or more of the work"
    assert change.note == f"9 dense layers in two factors; {reason}"
    assert [role for role, linear in model.encoder.layers[0].linears.items() if linear.factors] == ROLES[:3]


def test_nothing_that_pays_is_told():
    model = prepared("bert-ts17-eager", CANONICAL)
    before = model.fingerprint()
    change = apply(LowRank(keep=1), model)
    assert not change
    assert change.note.startswith("0 dense layers in two factors; 12 matrices left whole")
    assert model.fingerprint() == before


@pytest.mark.parametrize("name", SOME)
def test_layers_that_see_one_token_stay_whole(name):
    """There is nothing to win; where other layers use the same matrices, they follow."""
    model = prepared(name, CANONICAL, FUSE, FirstToken())
    apply(HALF, model)
    last = model.encoder.layers[-1]
    whole = [] if name.startswith("albert") else ["query", "output", "up", "down"]
    assert [role for role, linear in last.linears.items() if not linear.factors] == whole
    assert last.first_token


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("steps", [(FUSE,), (Fuse(style="standard"),), (FUSE, FirstToken(), Unpad())])
def test_other_passes_read_the_factors(name, steps):
    before = prepared(name, CANONICAL, HALF)
    model = prepared(name, CANONICAL, HALF, *steps)
    assert_same_outputs(model, before, every_padding(model)[:1] + every_padding(model)[-2:-1], atol=1e-5)
    assert all(linear.factors for layer in model.encoder.layers for linear in layer.linears.values())


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize(
    "steps",
    [
        (FUSE, HALF, SplitOutliers(gain=1), Smooth(gain=1), QuantizeStatic()),
        (Fuse(style="standard"), HALF, QuantizeStatic(format="qdq")),
        (FUSE, HALF, QuantizeDynamic()),
    ],
    ids=["smoothed", "qdq", "dynamic"],
)
def test_int8_holds_both_factors(name, steps):
    """The encoder is found in the int8 graph too, and every matrix runs in integers."""
    model = prepared(name, CANONICAL, *steps)
    linears = [linear for layer in model.encoder.layers for linear in layer.linears.values()]
    assert all(linear.quantized and len(linear.factors) == 2 for linear in linears)
    operators = [node.op_type for node in optimized(model).node]
    expected = len({factor.node for linear in linears for factor in linear.factors})
    assert expected == 10 * len(model.encoder.layers)
    projection = model.encoder.embeddings.projection is not None
    assert sum(operator in INTEGER_PRODUCTS for operator in operators) == expected + projection
    before = prepared(name, CANONICAL, HALF)
    assert_same_outputs(model, before, every_padding(model), atol=0.4)


def test_the_quantizer_sees_every_factor_once():
    model = prepared("bert-ts17-eager", CANONICAL, HALF)
    assert len({linear.node for linear in dense_layers(model)}) == len(dense_layers(model)) == 3 * 10


def test_inspection_counts_what_is_multiplied():
    """Rank 6, hidden 12, 20 neurons, 4 tokens: a shared factor counts once."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE, HALF)
    flops = flops_by_part(model, 1, 4)
    assert flops["feed-forward"] == 3 * 2 * 4 * 2 * 6 * (12 + 20)
    attention = 2 * 4 * 4 * 24 + 2 * 4 * 6 * ((12 + 36) + (12 + 12))
    assert flops["attention"] == 3 * attention
    parts = part_of_nodes(model)
    names = {node.name: parts[id(node)] for node in model.graph.nodes}
    layer = model.encoder.layers[0]
    assert {names[factor.node] for factor in (*layer.query.factors, *layer.output.factors)} == {"attention"}
    assert {names[factor.node] for factor in (*layer.up.factors, *layer.down.factors)} == {"feed-forward"}


def test_no_statistic_is_wider_than_the_narrow_side():
    """The products of `down` are what is measured, not its inputs, of which there are four times as many."""
    model = prepared("bert-ts17-eager", CANONICAL)
    wants = list(LowRank().wants(model))
    assert all(want.kind == "gram" for want in wants)
    found = trials(model).collect(model, wants)
    assert {gram.products.shape for gram in found.values()} == {(12, 12)}
    assert Want(model.encoder.layers[0].down.result, "gram") in wants
    assert len(wants) == 3 * 4


def test_a_second_time_finds_whole_layers_only():
    model = prepared("bert-ts17-eager", CANONICAL, LowRank(rank=0.5, pays=ALWAYS, roles="ffn"))
    change = apply(HALF, model)
    assert change.count == 3 * 4
    again = apply(HALF, model)
    assert (bool(again), again.note) == (
        False,
        "every dense layer is quantized, in factors already, or sees one token only",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, r"keep=0 is not in \(0, 1\]"),
        ({"rank": 1.5}, r"rank=1.5 is not in \(0, 1\]"),
        ({"keep": 0.5, "rank": 0.5}, "keep and rank are given; give one of them"),
        ({"pays": 0}, "pays=0 is not above 0"),
        ({"roles": "head"}, "roles='head' is not one of all, attention, ffn"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(PassError, match=message):
        LowRank(**options)


@pytest.mark.parametrize("step", [QuantizeStatic(), Float16()])
def test_a_model_that_is_not_float32_is_refused(step):
    with pytest.raises(PassError, match="start from the float"):
        apply(HALF, prepared("bert-ts17-eager", CANONICAL, FUSE, step))


@pytest.mark.parametrize("heads", [1, 2])
def test_heads_may_be_pruned_before(heads):
    """Query, key and value together are then narrower than what they read: 3 heads of 4 columns read 12."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE, Prune(heads=(heads,) * 3))
    exact = model.clone()
    change = apply(LowRank(rank=1.0, roles="attention", pays=9.0), model)
    assert change.count == 12
    assert_same_outputs(model, exact, every_padding(model), atol=1e-4)
