"""Given widths are what layers get, and units that do nothing are the ones that go."""

import numpy as np
import pytest
from graphs import SOME, apply, every_padding, prepared, trials
from oracles import assert_same_outputs

from onnxslim_bert.errors import DataError, PassError
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.prune import Prune
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.pruning.sensitivity import measure
from onnxslim_bert.rewriting.pruning.sites import find_sites
from onnxslim_bert.rewriting.pruning.surgery import keep_units
from onnxslim_bert.wording import counted

EXACT = Canonicalize(), Fuse()


def with_idle_units(model, kind, idle=1):
    """The model with as many units of every site that write nothing: the last one, the first one, and so on in turn."""
    for number, site in enumerate(find_sites(model, kind)):
        unit = -idle if number % 2 == 0 else 0
        for name in {linear.weight: linear for linear in site.readers(model)}:
            linear = next(x for x in site.readers(model) if x.weight == name)
            weight = np.array(model.array(name))
            rows = weight.T if linear.trans_b else weight
            blocks = rows.reshape(site.units, site.unit, -1)
            blocks[unit : unit + idle or None] = 0
            model.replace(name, weight)
    return model


def widths(model, kind):
    return [site.units for site in find_sites(model, kind)]


@pytest.mark.parametrize("name", SOME)
def test_idle_units_are_the_ones_that_go(name):
    """A head and seven neurons of each layer write nothing: without them the answers are the same."""
    model = with_idle_units(with_idle_units(prepared(name, *EXACT), "heads"), "neurons", 7)
    pruned = model.clone()
    heads, neurons = widths(model, "heads"), widths(model, "neurons")
    kept = [tuple(width - less for width in found) for found, less in ((heads, 1), (neurons, 7))]
    change = apply(Prune(*kept), pruned)
    assert change.count == len(heads) + 7 * len(neurons)
    assert change.note == f"{counted({'head': len(heads), 'neuron': 7 * len(neurons)})} removed"
    assert widths(pruned, "heads") == [width - 1 for width in heads]
    assert widths(pruned, "neurons") == [width - 7 for width in neurons]
    assert_same_outputs(pruned, model, every_padding(model), atol=1e-4)


def test_each_layer_keeps_as_many_as_it_is_told():
    """Layers and kinds that are not named keep all, and the errors are those of what was refitted."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    heads, neurons = widths(model, "heads"), widths(model, "neurons")
    change = apply(Prune(heads=(heads[0], 1, heads[2])), model)
    assert widths(model, "heads") == [heads[0], 1, heads[2]]
    assert widths(model, "neurons") == neurons
    assert (change.count, change.note) == (heads[1] - 1, f"{heads[1] - 1} heads removed")
    assert len(change.details["errors"]) == 1


def test_one_number_is_every_layer_s():
    """The same bytes as when it is written for each."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    each = model.clone()
    apply(Prune((1,), (5,)), model)
    apply(Prune((1, 1, 1), (5, 5, 5)), each)
    assert widths(model, "heads") == [1, 1, 1]
    assert widths(model, "neurons") == [5, 5, 5]
    assert model.fingerprint() == each.fingerprint()


def test_what_is_left_is_refitted():
    """It does less than cutting the same units out."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    on_rows, cut, refitted = trials(model), model.clone(), model.clone()
    apply(Prune(neurons=(3, 3, 3)), refitted)
    sites = find_sites(model, "neurons")
    for one in measure(model, sites, [[] for _ in sites], on_rows):
        keep_units(cut, one.site, one.kept(3))
    assert on_rows.damage(refitted) < 0.9 * on_rows.damage(cut)


def test_shared_layers_are_told_once():
    """ALBERT's layers have one set of matrices, so one width."""
    model = prepared("albert-ts17-sdpa", *EXACT)
    apply(Prune((1,), (5,)), model)
    assert {(layer.heads, layer.linears["up"].d_out) for layer in model.encoder.layers} == {(1, 5)}
    assert len({layer.linears["up"].weight for layer in model.encoder.layers}) == 1


@pytest.mark.parametrize("empty", [True, False], ids=["nothing asked", "all asked"])
def test_nothing_to_do_says_so(empty):
    model = prepared("bert-ts17-sdpa", *EXACT)
    before = len(model.graph.nodes)
    asked = [] if empty else [tuple(widths(model, kind)) for kind in ("heads", "neurons")]
    change = apply(Prune(*asked), model)
    assert (change.count, change.note) == (0, "no widths given" if empty else "every layer has these widths already")
    assert len(model.graph.nodes) == before


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Prune((1, 1)), "prune: heads for 2 layers; the encoder has 3 with matrices of their own"),
        (Prune((9,)), "prune: 9 heads asked for in layer 0, which has 3"),
        (Prune((1, 9, 1)), "prune: 9 heads asked for in layer 1, which has 3"),
    ],
    ids=str,
)
def test_widths_that_do_not_fit_are_refused(step, message):
    model = prepared("bert-ts17-sdpa", *EXACT)
    with pytest.raises(PassError) as caught:
        apply(step, model)
    assert str(caught.value) == message


@pytest.mark.parametrize("options", [{"heads": (1, 0, 1)}, {"neurons": (4, -1)}])
def test_widths_below_one_are_refused(options):
    with pytest.raises(PassError, match="needed whole numbers from 1, one a layer, like 12/9/9"):
        Prune(**options)


def test_a_quantized_model_is_refused():
    with pytest.raises(PassError, match="start from the float32 model"):
        apply(Prune((1, 1, 1)), prepared("bert-ts17-sdpa", *EXACT, QuantizeStatic()))


def test_it_needs_rows_to_measure_on():
    with pytest.raises(DataError, match="name some with --calib"):
        Prune((1, 1, 1)).apply(prepared("bert-ts17-sdpa", *EXACT), Context())
