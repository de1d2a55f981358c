"""Neurons go where the model misses them least, and what reads the others makes up for them."""

import numpy as np
import pytest
from graphs import SOME, apply, every_padding, prepared, trials
from oracles import answers, assert_same_outputs

from onnxslim_bert.errors import DataError, PassError
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.prune_ffn import PruneFfn
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.pruning.sensitivity import measure
from onnxslim_bert.rewriting.pruning.sites import find_sites

CANONICAL, FUSE = Canonicalize(), Fuse()
OTHERS = ("bert-features", "bert-mlm-tied", "bert-nomask", "bert-dynamo23-sdpa", "fused-mha")


def neurons(model):
    return [layer.up.d_out for layer in model.encoder.layers]


def without_neurons(model, kept):
    """A copy with zeros in the rows of `down` of other neurons than `kept`, layer by layer."""
    copy = model.clone()
    downs = {layer.down.weight: (layer.down, units) for layer, units in zip(model.encoder.layers, kept, strict=True)}
    for weight, (linear, units) in downs.items():
        rows = np.isin(np.arange(linear.d_in), units).astype(np.float32)
        copy.replace(weight, model.array(weight) * (rows if linear.trans_b else rows[:, None]))
    return copy


@pytest.mark.parametrize("name", [*SOME, *OTHERS])
def test_a_share_of_the_neurons_is_left(name):
    """Over the whole encoder, one in each layer at least; layers that share their matrices count once."""
    model = prepared(name, CANONICAL)
    total = sum(site.units for site in find_sites(model, "neurons"))
    change = apply(PruneFfn(keep=0.67), model)
    left = [site.units for site in find_sites(model, "neurons")]
    assert sum(left) == int(total * 0.67)
    assert min(left) >= 1
    assert change.count == total - sum(left)
    assert change.note == f"{change.count} of {total} neurons removed; kept {', '.join(map(str, left))}"
    assert all(np.isfinite(v).all() for given in answers(model, every_padding(model)) for v in given.values())


@pytest.mark.parametrize("name", SOME)
def test_without_a_refit_it_is_the_model_with_zeroed_rows(name):
    model = prepared(name, CANONICAL, FUSE)
    sites = find_sites(model, "neurons")
    measured = measure(model, sites, [[] for _ in sites], trials(model))
    kept = {index: one.kept(13) for one in measured for index in one.site.layers}
    expected = without_neurons(model, [kept[index] for index in range(3)])
    assert apply(PruneFfn(keep=0.67, even=True, refit=False), model)
    assert neurons(model) == [13] * 3
    assert_same_outputs(model, expected, every_padding(model), atol=1e-5)


@pytest.mark.parametrize("refit", [True, False])
def test_neurons_that_do_nothing_go_first(refit):
    """Wherever they are: the answers stay what they were."""
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    idle = without_neurons(model, [range(20), range(3, 18), [*range(8), 19]])
    model = idle.clone()
    apply(PruneFfn(keep=44 / 60, refit=refit), model)
    assert neurons(model) == [20, 15, 9]
    assert_same_outputs(model, idle, every_padding(model), atol=2e-3 if refit else 1e-5)


@pytest.mark.parametrize("name", ["bert-ts13-eager", "prenorm-dynamo18-eager"])
def test_a_refit_brings_the_answers_nearer(name):
    model = prepared(name, CANONICAL, FUSE)
    on_rows, damages = trials(model), []
    for refit in (False, True):
        pruned = model.clone()
        PruneFfn(keep=0.67, even=True, refit=refit).apply(pruned, Context({}, on_rows))
        damages.append(on_rows.damage(pruned))
    assert damages[1] < damages[0]


@pytest.mark.parametrize("keep", [1.0, 0.99])
def test_nothing_to_remove_is_told(keep):
    """One neuron of 60 is less than a share of 0.01, and goes all the same; the budget is never exceeded."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    before = model.fingerprint()
    change = apply(PruneFfn(keep=keep), model)
    if keep < 1:
        assert (change.count, neurons(model).count(20)) == (1, 2)
        return
    assert (bool(change), change.note) == (False, "all 60 neurons are kept: keep=1.0")
    assert model.fingerprint() == before


@pytest.mark.parametrize("keep", [0.0, 1.5, -1.0])
def test_shares_that_are_none_are_refused(keep):
    with pytest.raises(PassError, match=rf"prune-ffn: keep={keep} is not in \(0, 1\]; 0.75 keeps three quarters"):
        PruneFfn(keep=keep)


def test_no_rounds_are_refused():
    with pytest.raises(PassError, match="prune-ffn: rounds=0 removes nothing"):
        PruneFfn(rounds=0)


def test_leaving_a_layer_without_neurons_is_refused():
    with pytest.raises(PassError, match=r"keep=0\.02 leaves 1 of 60 neurons; at least 3 are needed"):
        apply(PruneFfn(keep=0.02), prepared("bert-ts17-eager", CANONICAL, FUSE))


@pytest.mark.parametrize("step", [QuantizeStatic(), Float16()], ids=["int8", "float16"])
def test_a_model_in_small_types_is_refused(step):
    with pytest.raises(PassError, match="start from the float32 model"):
        apply(PruneFfn(), prepared("bert-ts17-eager", CANONICAL, FUSE, step))


def test_rows_to_measure_on_are_needed():
    with pytest.raises(DataError, match="measures on calibration data"):
        PruneFfn().apply(prepared("bert-ts17-eager", CANONICAL, FUSE), Context())
