"""Units that are cut out leave what zeroing their rows leaves, in every export, and the graph stays one to work on."""

from collections import Counter

import numpy as np
import pytest
from graphs import DISTINCT, EVERY, SOME, apply, every_padding, fixture, prepared, reference
from oracles import answers, assert_linear, assert_same_outputs, matrix

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.inspection.inspection import inspect
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.rewriting.pruning.least_squares import channels
from onnxslim_bert.rewriting.pruning.sites import find_sites
from onnxslim_bert.rewriting.pruning.surgery import keep_units, set_reader

CANONICAL, FUSE, STANDARD, FIRST = Canonicalize(), Fuse(), Fuse(style="standard"), FirstToken()
OTHERS = ("bert-features", "bert-features-pooled", "bert-mlm", "bert-mlm-tied", "bert-nomask", "bert-dynamo23-sdpa")
FUSED = ("fused-mha", "fused-attention")
KEPT = {"heads": ([0, 2], [1], [1, 2]), "neurons": ([*range(3, 16)], [0, 2, 4, 6, 11, 17, 19], [*range(17)])}


def sites_with_kept(model, kinds=("heads", "neurons")):
    return [(site, np.array(KEPT[kind][i])) for kind in kinds for i, site in enumerate(find_sites(model, kind))]


def cut(model, kinds=("heads", "neurons")):
    """A copy with the units of KEPT only."""
    pruned = model.clone()
    for site, units in sites_with_kept(model, kinds):
        keep_units(pruned, site, units)
    return pruned


def zeroed(model, kinds=("heads", "neurons")):
    """A copy whose readers have zeros in the rows of the other units."""
    copy = model.clone()
    for site, units in sites_with_kept(model, kinds):
        kept = channels(units, site.unit)
        for linear in {linear.weight: linear for linear in site.readers(model)}.values():
            rows = np.zeros((linear.d_in, 1), np.float32)
            rows[kept] = 1
            copy.replace(linear.weight, model.array(linear.weight) * (rows.T if linear.trans_b else rows))
    return copy


def widths(model):
    return [(layer.heads, layer.head_dim, layer.up.d_out, layer.down.d_in) for layer in model.encoder.layers]


def kept_widths(name):
    counts = [(len(KEPT["heads"][i]), len(KEPT["neurons"][i])) for i in (0, 1, 2)]
    counts = [counts[0]] * 3 if name.startswith("albert") else counts[: 2 if "mlm" in name else 3]
    return [(heads, 4, neurons, neurons) for heads, neurons in counts]


@pytest.mark.parametrize("name", [*EVERY, *OTHERS, *FUSED])
def test_cut_units_equal_zeroed_rows(name):
    """In the graph as it was exported; the encoder is found again, with the widths that were kept."""
    model = prepared(name, CANONICAL)
    pruned = cut(model)
    assert_same_outputs(pruned, zeroed(model), every_padding(model), atol=1e-5)
    assert widths(pruned) == kept_widths(name)


@pytest.mark.parametrize("name", [*SOME, *OTHERS, *FUSED])
@pytest.mark.parametrize(
    "steps", [(FUSE,), (STANDARD,), (FUSE, FIRST), (FUSE, SkipMask())], ids=["fuse", "standard", "first", "skip"]
)
def test_rewritten_graphs_can_be_cut_too(name, steps):
    model = prepared(name, CANONICAL, *steps)
    pruned = cut(model)
    assert_same_outputs(pruned, zeroed(model), every_padding(model), atol=1e-5)
    assert widths(pruned) == kept_widths(name)
    assert [x.first_token for x in pruned.encoder.layers] == [x.first_token for x in model.encoder.layers]


@pytest.mark.parametrize("made", ["constant", "of sizes"])
@pytest.mark.parametrize("name", SOME)
def test_reshapes_to_the_number_of_neurons_follow_it(name, made):
    """As onnxsim and hand-made exports leave them; the sizes of tokens are put before it once for all layers."""
    model = prepared(name, CANONICAL, FUSE)
    build, tensors = Builder(model.graph, "view"), model.graph.tensors()
    up = model.encoder.layers[0].up
    shape = build.constant("shape", np.array([0, -1, up.d_out]))
    if made == "of sizes":
        tokens = build.node("Shape", "tokens", [tensors[up.source]], start=0, end=2)
        shape = build.node("Concat", "shape", [tokens, build.constant("width", np.array([up.d_out]))], axis=0)
    for layer in model.encoder.layers:
        node = next(node for node in model.graph.nodes if node.name == layer.down.node)
        node.inputs[0] = build.node("Reshape", "neurons", [node.inputs[0], shape])
    model.changed()
    pruned = cut(model)
    assert_same_outputs(pruned, zeroed(model), every_padding(model), atol=1e-5)
    assert widths(pruned) == kept_widths(name)


@pytest.mark.parametrize("style", [FUSE, STANDARD], ids=["contrib", "standard"])
@pytest.mark.parametrize("name", [*SOME, "bert-dynamo23-sdpa"])
def test_what_was_cut_still_fuses(name, style):
    """Into the operators that the whole graph becomes."""
    model = prepared(name, CANONICAL)
    pruned = cut(model)
    apply(style, pruned)
    whole = Counter(node.op for node in prepared(name, CANONICAL, style).graph.nodes)
    assert Counter(node.op for node in pruned.graph.nodes) == whole
    assert_same_outputs(pruned, zeroed(model), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("form", ["contrib", "qdq"])
@pytest.mark.parametrize("name", SOME)
def test_what_was_cut_still_quantizes(name, form):
    """Every dense layer of the encoder, with answers as near as int8 brings a tiny model."""
    pruned = cut(prepared(name, CANONICAL, FUSE if form == "contrib" else STANDARD))
    exact = pruned.clone()
    apply(QuantizeStatic(format=form), pruned)
    assert all(linear.quantized for layer in pruned.encoder.layers for linear in layer.linears.values())
    given = every_padding(exact)
    for ours, theirs in zip(answers(pruned, given), answers(exact, given), strict=True):
        for output in theirs:
            np.testing.assert_allclose(ours[output], theirs[output], atol=0.3)


@pytest.mark.parametrize("name", ["bert-ts17-sdpa", "albert-ts14-sdpa"])
def test_what_was_cut_can_be_inspected(name, tmp_path):
    pruned = cut(prepared(name, CANONICAL, FUSE))
    pruned.save(tmp_path / "pruned.onnx")
    before, after = inspect(fixture(name)), inspect(tmp_path / "pruned.onnx")
    facts = after.encoder.facts
    found = list(zip(facts.heads, facts.head_width, facts.feed_forward, strict=True))
    assert found == [row[:3] for row in kept_widths(name)]
    assert all(facts.proven)
    assert sum(cost.parameters for cost in after.encoder.costs) < sum(cost.parameters for cost in before.encoder.costs)


@pytest.mark.parametrize("name", DISTINCT)
def test_only_the_layers_of_the_site_change(name):
    """Constants that happen to be equal are stored once, biases of zeros for instance: others keep theirs."""
    model, weights = prepared(name, CANONICAL), reference(name)
    site = find_sites(model, "neurons")[0]
    keep_units(model, site, np.array([1, 4]))
    kept = find_sites(model, "heads")[0]
    keep_units(model, kept, np.array([2]))
    touched = {"query", "key", "value", "output", "up", "down"}
    for layer in model.encoder.layers:
        for role, linear in layer.linears.items():
            if layer.index not in site.layers or role not in touched:
                assert_linear(model, linear, weights, f"layers.{layer.index}.{role}")


@pytest.mark.parametrize("name", [name for name in EVERY if name.startswith("albert")])
def test_shared_matrices_are_cut_once_and_stay_shared(name):
    model = prepared(name, CANONICAL)
    pruned = cut(model)
    for role in ("query", "key", "value", "output", "up", "down"):
        assert len({layer.linears[role].weight for layer in pruned.encoder.layers}) == 1, role
        assert len({layer.linears[role].bias for layer in pruned.encoder.layers}) == 1, role
    assert sum(x.values.size for x in pruned.constants().values()) < sum(
        x.values.size for x in model.constants().values()
    )


def test_a_constant_that_two_layers_share_by_chance_is_cut_for_one():
    """The biases of two `up` are equal and stored once; one layer is narrowed."""
    model = prepared("bert-ts17-eager", CANONICAL)
    first, second = (model.encoder.layers[i].up for i in (0, 1))
    for linear in (first, second):
        model.replace(linear.bias, np.full(20, 0.5, np.float32))
    apply(CANONICAL, model)
    assert model.encoder.layers[0].up.bias == model.encoder.layers[1].up.bias
    kept = np.arange(5)
    keep_units(model, find_sites(model, "neurons")[0], kept)
    assert [model.array(layer.up.bias).shape for layer in model.encoder.layers] == [(5,), (20,), (20,)]
    assert answers(model, every_padding(model))


@pytest.mark.parametrize("name", SOME)
def test_a_reader_takes_another_matrix_and_a_shift(name):
    """Its rows are those of the units that are left; the shift joins the bias."""
    model = prepared(name, CANONICAL, FUSE)
    site = find_sites(model, "neurons")[0]
    before = model.array(site.readers(model)[0].bias)
    keep_units(model, site, np.array([1, 4, 5]))
    weight = np.random.default_rng(0).standard_normal((3, 12))
    set_reader(model, site, weight, np.arange(12.0))
    for linear in site.readers(model):
        np.testing.assert_array_equal(matrix(model, linear), weight.astype(np.float32))
        np.testing.assert_allclose(model.array(linear.bias), before + np.arange(12), rtol=1e-6)
    assert answers(model, every_padding(model))


def test_attention_that_is_not_proven_is_refused():
    """Nodes that hold no number of heads and compute something else than attention cannot be narrowed."""
    model = prepared("bert-ts17-eager", CANONICAL)
    softmax = next(node for node in model.graph.nodes if node.op == "Softmax")
    softmax.attrs["axis"] = 1
    model.changed()
    assert model.encoder.layers[0].form is None
    with pytest.raises(PassError, match=r"layer 0: its attention is not proven .*, so its heads cannot go"):
        keep_units(model, find_sites(model, "heads")[0], np.array([0, 1]))


def test_the_original_keeps_its_weights():
    """Arrays that copies share are not edited."""
    model = Model.load(fixture("bert-ts17-eager"))
    apply(CANONICAL, model)
    before = model.fingerprint()
    cut(model)
    assert model.fingerprint() == before
