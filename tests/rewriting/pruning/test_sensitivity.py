"""What a width is said to cost is what a model narrowed to it costs."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import SOME, prepared, trials

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.rewriting.pruning.least_squares import channels, moments, refit, with_ridge
from onnxslim_bert.rewriting.pruning.sensitivity import RIDGE, Sensitivity, gram_wants, measure
from onnxslim_bert.rewriting.pruning.sites import Site, find_sites
from onnxslim_bert.rewriting.pruning.surgery import keep_units, matrix, set_reader

CANONICAL, FUSE = Canonicalize(), Fuse()
SITE = Site("neurons", (0,), 8, 1)


@pytest.mark.parametrize(("kind", "count"), [("heads", 2), ("neurons", 7)])
@pytest.mark.parametrize("name", SOME)
def test_damage_is_that_of_the_narrowed_model(name, kind, count):
    """One site is cut and refitted in the graph itself, the model judged whole."""
    model = prepared(name, CANONICAL, FUSE)
    on_rows, site = trials(model), find_sites(model, kind)[-1]
    (found,) = measure(model, [site], [[count, site.units]], on_rows)
    kept = found.kept(count)
    grams = list(on_rows.collect(model, gram_wants(model, site)).values())
    covariance, mean = moments(grams)
    weight = matrix(model, site.readers(model)[0]).astype(np.float64)
    fitted = refit(with_ridge(covariance, RIDGE), weight, channels(kept, site.unit))
    narrowed = model.clone()
    keep_units(narrowed, site, kept)
    set_reader(narrowed, site, fitted[channels(kept, site.unit)], mean @ (weight - fitted))
    assert found.damage[count] == pytest.approx(on_rows.damage(narrowed), rel=1e-3)
    assert found.damage[site.units] == pytest.approx(0, abs=1e-5)
    assert found.damage[count] > 1e-4


def test_measuring_leaves_the_model():
    model = prepared("albert-ts14-sdpa", CANONICAL, FUSE)
    before = model.fingerprint()
    measure(model, find_sites(model, "heads"), [[1, 2]], trials(model))
    assert model.fingerprint() == before


def test_long_tails_are_opened_once_a_site(monkeypatch):
    """Nodes behind the encoder are written out to judge a site's widths, and not to collect what it reads."""
    opened = [nodes_written(prepared("bert-ts17-eager", CANONICAL), count, monkeypatch) for count in (0, 50, 100)]
    sites = 3
    assert np.diff(opened).tolist() == [50 * (sites + 1)] * 2  # and once for the answers of the original


def nodes_written(model: Model, count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The nodes written out for sessions that measure the heads of `model`, with `count` nodes in a row behind it."""
    (answer,) = model.graph.outputs
    for number in range(count):
        (writer,) = answer.inputs
        inner = gs.Variable(f"inner.{number}")
        writer.outputs[0] = inner
        model.graph.nodes.append(gs.Node("Neg", f"neg.{number}", inputs=[inner], outputs=[answer]))
    model.changed()
    sizes: list[int] = []
    usual = Model.skeleton
    monkeypatch.setattr(Model, "skeleton", lambda self: sizes.append(len(self.graph.nodes)) or usual(self))
    measure(model, find_sites(model, "heads"), [[1, 3]] * 3, trials(model))
    monkeypatch.undo()
    return sum(sizes)


def test_moments_of_layers_that_share_come_together():
    """One Gram a layer: what each of them reads."""
    model = prepared("albert-ts14-sdpa", CANONICAL, FUSE)
    (site,) = find_sites(model, "neurons")
    grams = trials(model).collect(model, gram_wants(model, site)).values()
    assert [gram.products.shape for gram in grams] == [(20, 20)] * 3
    assert len({gram.products.trace() for gram in grams}) == 3


def test_units_are_kept_from_the_end_of_the_order():
    found = Sensitivity(SITE, np.array([3, 0, 7, 1, 2, 6, 5, 4]), {})
    assert found.kept(3).tolist() == [4, 5, 6]
    assert found.kept(8).tolist() == list(range(8))


def test_widths_between_the_measured_ones_are_interpolated():
    """Squares, since squares of independent errors add up; noise does not make a wider site worse."""
    found = Sensitivity(SITE, np.arange(8), {2: 0.5, 4: 0.1, 6: 0.2, 8: 0.0})
    np.testing.assert_allclose(found.squared([2, 3, 4, 6, 7, 8]), [0.25, 0.145, 0.04, 0.04, 0.02, 0.0])
