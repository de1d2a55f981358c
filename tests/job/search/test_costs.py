"""What narrowing saves, as the files and the clock say; here the clock counts weights."""

import numpy as np
import pytest
from graphs import fixture, prepared
from weighing_clock import fake_ms

from onnxslim_bert.errors import PassError
from onnxslim_bert.job.deployment import ON_CPU
from onnxslim_bert.job.search import costs
from onnxslim_bert.job.search.costs import (
    NOTES,
    TimingConditions,
    alike,
    measure_costs,
    prunable_sites,
    time_models,
    write_quantized,
)
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.proof.intervals import Interval
from onnxslim_bert.rewriting.pruning.sites import find_sites

EXACT = Canonicalize(), Fuse()


def quiet(*_):
    pass


@pytest.mark.parametrize("name", ["bert-ts17-sdpa", "albert-dynamo18-eager", "distilbert-ts13-eager"])
def test_a_unit_saves_what_its_weights_take(name, tmp_path):
    """A neuron a column of up and a row of down, a head `head_dim` of four matrices; shared ones once."""
    model = prepared(name, *EXACT)
    costs = measure_costs(fixture(name), model, tmp_path, TimingConditions(), quiet)
    assert costs.source_ms == pytest.approx(fake_ms(fixture(name)))
    assert costs.full_ms == pytest.approx(fake_ms(tmp_path / "full.onnx"))
    assert costs.full_bytes == (tmp_path / "full.onnx").stat().st_size + NOTES
    assert [path.name for path in tmp_path.iterdir()] == ["full.onnx"]
    hidden = model.encoder.hidden
    for site in prunable_sites(model):
        weights = (2 if site.kind == "neurons" else 4) * hidden * site.unit
        assert costs.of(site).ms == pytest.approx(weights / 1000, rel=0.02)
        assert weights < costs.of(site).nbytes < 4 * weights  # int8 weights, float scales and biases
    assert len(costs.savings) == len(prunable_sites(model))


def test_layers_that_compute_the_same_are_narrowed_together():
    """The last one works on one token; of a file in which it already does, too."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    done = prepared("bert-ts17-sdpa", *EXACT, FirstToken())
    for one in (model, done):
        groups = alike(one, prunable_sites(one))
        assert [[site.layers for site in group] for group in groups] == [[(0,), (1,)], [(2,)]] * 2
        assert [group[0].kind for group in groups] == ["heads", "heads", "neurons", "neurons"]


def test_an_encoder_without_plain_feed_forwards_has_heads_only(monkeypatch):
    """What cannot be pruned is left out, and the rest is searched."""

    def heads_only(model, kind):
        if kind == "neurons":
            raise PassError("layer 0 has no plain feed-forward: nothing to prune")
        return find_sites(model, kind)

    monkeypatch.setattr(costs, "find_sites", heads_only)
    assert {site.kind for site in prunable_sites(prepared("bert-ts17-sdpa", *EXACT))} == {"heads"}


def test_units_that_are_left_out_are_gone_from_the_file(tmp_path):
    """And everything else is int8."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    (site, *_) = find_sites(model, "neurons")
    made = Model.load(write_quantized(model, [site], 0.5, tmp_path / "narrow.onnx", ON_CPU))
    widths = [layer.linears["up"].d_out for layer in made.encoder.layers]
    assert widths == [site.units // 2, site.units, site.units]
    assert all(linear.quantized for layer in made.encoder.layers for linear in layer.linears.values())
    assert {layer.first_token for layer in made.encoder.layers} == {False, True}


def test_a_difference_that_the_rounds_cannot_tell_is_none(monkeypatch):
    """Else noise would choose."""
    speedups = [Interval(1.0, 1.0, 1.0), Interval(1.02, 0.99, 1.04), Interval(2.0, 1.9, 2.1), Interval(0.5, 0.4, 0.6)]
    latencies = [type("Latency", (), {"median_ms": 8.0, "speedup": speedup}) for speedup in speedups]
    monkeypatch.setattr(costs, "bench", lambda *_, **__: type("Bench", (), {"latencies": latencies}))
    np.testing.assert_allclose(time_models([], TimingConditions()), [8, 8, 4, 16])
