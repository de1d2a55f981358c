"""What holds for heads and for neurons alike: how many go, what makes up for them, and what is refused."""

import re

import numpy as np
import pytest
from graphs import SOME, apply, every_padding, prepared, trials
from oracles import answers, assert_same_outputs
from pruned import units, without_units

from onnxslim_bert.errors import DataError, PassError
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.prune_ffn import PruneFfn
from onnxslim_bert.passes.prune_heads import PruneHeads
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.pruning.sensitivity import measure
from onnxslim_bert.rewriting.pruning.sites import find_sites

CANONICAL, FUSE = Canonicalize(), Fuse()
OTHERS = ("bert-features", "bert-mlm-tied", "bert-nomask", "bert-dynamo23-sdpa", "fused-mha")
both = pytest.mark.parametrize("prune", [PruneHeads, PruneFfn])


@both
@pytest.mark.parametrize("name", [*SOME, *OTHERS])
def test_a_share_of_the_units_is_left(prune, name):
    """Over the whole encoder, one in each layer at least; layers that share their matrices count once."""
    model = prepared(name, CANONICAL)
    total = sum(units(model, prune.kind))
    change = apply(prune(keep=0.67), model)
    left = units(model, prune.kind)
    assert sum(left) == int(total * 0.67)
    assert min(left) >= 1
    assert change.count == total - sum(left)
    assert change.note == f"{change.count} of {total} {prune.kind} removed; kept {', '.join(map(str, left))}"
    assert all(np.isfinite(v).all() for given in answers(model, every_padding(model)) for v in given.values())


@pytest.mark.parametrize(("prune", "left"), [(PruneHeads, 2), (PruneFfn, 13)])
@pytest.mark.parametrize("name", SOME)
def test_without_a_refit_it_is_the_model_with_zeroed_rows(prune, left, name):
    model = prepared(name, CANONICAL, FUSE)
    sites = find_sites(model, prune.kind)
    measured = measure(model, sites, [[] for _ in sites], trials(model))
    expected = without_units(model, prune.kind, [one.kept(left) for one in measured])
    assert apply(prune(keep=0.67, even=True, refit=False), model)
    assert units(model, prune.kind) == [left] * len(sites)
    layers = [layer.heads if prune is PruneHeads else layer.up.d_out for layer in model.encoder.layers]
    assert layers == [left] * 3
    assert_same_outputs(model, expected, every_padding(model), atol=1e-5)


@both
@pytest.mark.parametrize("name", ["bert-ts13-eager", "prenorm-dynamo18-eager"])
def test_a_refit_brings_the_answers_nearer(prune, name):
    model = prepared(name, CANONICAL, FUSE)
    on_rows, damages = trials(model), []
    for refit in (False, True):
        pruned = model.clone()
        prune(keep=0.67, even=True, refit=refit).apply(pruned, Context({}, on_rows))
        damages.append(on_rows.damage(pruned))
    assert damages[1] < damages[0]


@pytest.mark.parametrize(("prune", "keep", "units_of_a_layer"), [(PruneHeads, 0.95, 3), (PruneFfn, 0.99, 20)])
def test_a_share_of_less_than_a_unit_takes_one(prune, keep, units_of_a_layer):
    """The budget is never exceeded."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    change = apply(prune(keep=keep), model)
    assert (change.count, units(model, prune.kind).count(units_of_a_layer)) == (1, 2)


@pytest.mark.parametrize(("prune", "total"), [(PruneHeads, 9), (PruneFfn, 60)])
def test_nothing_to_remove_is_told(prune, total):
    """And the model stays as it was."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    before = model.fingerprint()
    change = apply(prune(keep=1.0), model)
    assert (bool(change), change.note) == (False, f"all {total} {prune.kind} are kept: keep=1.0")
    assert model.fingerprint() == before


@both
@pytest.mark.parametrize("keep", [0.0, 1.5, -1.0])
def test_shares_that_are_none_are_refused(prune, keep):
    said = f"{prune.name}: keep={keep} is not in (0, 1]; 0.75 keeps three quarters"
    with pytest.raises(PassError, match=re.escape(said)):
        prune(keep=keep)


@both
def test_no_rounds_are_refused(prune):
    with pytest.raises(PassError, match=f"{prune.name}: rounds=0 removes nothing"):
        prune(rounds=0)


@pytest.mark.parametrize(
    ("step", "said"),
    [(PruneHeads(keep=0.2), "keep=0.2 leaves 1 of 9 heads"), (PruneFfn(keep=0.02), "keep=0.02 leaves 1 of 60 neurons")],
)
def test_leaving_a_layer_without_units_is_refused(step, said):
    with pytest.raises(PassError, match=re.escape(f"{said}; at least 3 are needed")):
        apply(step, prepared("bert-ts17-eager", CANONICAL, FUSE))


@both
@pytest.mark.parametrize("step", [QuantizeStatic(), Float16()], ids=["int8", "float16"])
def test_a_model_in_small_types_is_refused(prune, step):
    with pytest.raises(PassError, match="start from the float32 model"):
        apply(prune(), prepared("bert-ts17-eager", CANONICAL, FUSE, step))


@both
def test_rows_to_measure_on_are_needed(prune):
    with pytest.raises(DataError, match="measures on calibration data"):
        prune().apply(prepared("bert-ts17-eager", CANONICAL, FUSE), Context())
