"""Sites narrowed one after the other, with and without a refit."""

import numpy as np
import pytest
from graphs import SOME, every_padding, prepared, trials
from oracles import assert_same_outputs, matrix

from onnxslim_bert.calibration.observers import Gram
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.rewriting.pruning.prune import best_refit, prune
from onnxslim_bert.rewriting.pruning.sites import find_sites
from onnxslim_bert.rewriting.pruning.surgery import keep_units

CANONICAL, FUSE = Canonicalize(), Fuse()


def every_site(model):
    return [site for kind in ("neurons", "heads") for site in find_sites(model, kind)]


def first_units(sites, share=0.6):
    return [np.arange(int(site.units * share)) for site in sites]


@pytest.mark.parametrize("name", SOME)
def test_without_trials_rows_are_only_cut(name):
    """As `keep_units` does, site by site."""
    model = prepared(name, CANONICAL, FUSE)
    expected, sites = model.clone(), every_site(model)
    for site, units in zip(sites, first_units(sites), strict=True):
        keep_units(expected, site, units)
    assert prune(model, sites, first_units(sites), None) == []
    assert_same_outputs(model, expected, every_padding(model), atol=0)


@pytest.mark.parametrize("name", SOME)
def test_a_refit_answers_nearer(name):
    """Judged on held-back rows; each error is a share of what the reader gave."""
    model = prepared(name, CANONICAL, FUSE)
    on_rows, cut, sites = trials(model), model.clone(), every_site(model)
    prune(cut, sites, first_units(sites), None)
    errors = prune(model, sites, first_units(sites), on_rows)
    assert len(errors) == len(sites)
    assert all(0 < error < 1 for error in errors)
    assert on_rows.damage(model) < on_rows.damage(cut)


@pytest.mark.parametrize("name", ["bert-ts13-eager", "albert-ts14-sdpa"])
def test_a_neuron_that_doubles_another_goes_without_a_trace(name):
    """Its row joins the other's, in every layer that shares the matrices."""
    model = prepared(name, CANONICAL, FUSE)
    site = find_sites(model, "neurons")[0]
    up, down = site.writers(model)[0], site.readers(model)[0]
    columns, bias = matrix(model, up).copy(), model.array(up.bias).copy()
    columns[:, 3], bias[3] = columns[:, 11], bias[11]
    model.replace(up.weight, np.ascontiguousarray(columns.T) if up.trans_b else columns)
    model.replace(up.bias, bias)
    on_rows, whole = trials(model), model.clone()
    joined = matrix(model, down)[3] + matrix(model, down)[11]
    (error,) = prune(model, [site], [np.delete(np.arange(20), 3)], on_rows)
    assert error < 1e-2
    np.testing.assert_allclose(matrix(model, site.readers(model)[0])[10], joined, atol=2e-2)
    assert_same_outputs(model, whole, every_padding(model), atol=1e-2)


def test_a_site_that_keeps_all_is_left():
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    before, sites = model.fingerprint(), every_site(model)
    assert prune(model, sites, [np.arange(site.units) for site in sites], trials(model)) == []
    assert model.fingerprint() == before


def gram(rows):
    return Gram(rows.T @ rows, rows.sum(0), len(rows))


def test_rows_that_were_held_back_choose_the_ridge():
    """With many rows the fit is free; where they are few and others look different, the matrix is left alone."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((6, 6))
    rows, weight, kept = rng.standard_normal((2000, 6)) @ mixed, rng.standard_normal((6, 4)), np.array([0, 1, 4])
    unseen = rng.standard_normal((500, 6)) @ mixed
    fitted, error = best_refit([gram(rows)], [gram(unseen)], weight, kept)
    centred = unseen - unseen.mean(0)
    missed = np.linalg.norm(centred @ (fitted - weight)) / np.linalg.norm(centred @ weight)
    assert error == pytest.approx(missed)
    alone = np.zeros_like(weight)
    alone[kept] = weight[kept]
    assert error < np.linalg.norm(centred @ (alone - weight)) / np.linalg.norm(centred @ weight)
    misleading, _ = best_refit([gram(rows)], [gram(rng.standard_normal((500, 6)))], weight, kept)
    np.testing.assert_array_equal(misleading, alone)
