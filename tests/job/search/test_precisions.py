"""What int8 does to each layer, and what keeping one in float32 costs."""

import numpy as np
import pytest
from graphs import prepared, trials
from weighing_clock import fake_ms

from onnxslim_bert.job.deployment import ON_CPU
from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.costs import Costs, Saving, TimingConditions, prunable_sites, site_key, write_quantized
from onnxslim_bert.job.search.precisions import Int8Trials, measure_precisions, rank
from onnxslim_bert.job.search.search_plan import SearchPlan
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.recipes.run import run_recipe

EXACT = Canonicalize(), Fuse()


def measured(model: Model, folder, other=None) -> list[Alternative]:
    """Where a unit of a site saves a tenth of a millisecond, or what `other` says."""
    savings = {site_key(site): Saving(0.1, 1.0) for site in prunable_sites(model)} | (other or {})
    costs = Costs(source_ms=100.0, full_ms=50.0, full_bytes=5000, savings=savings)
    return measure_precisions(model, "mse", costs, TimingConditions(), folder, trials(model))


def damage_of(model: Model, plan: SearchPlan) -> float:
    """Of the model that the recipe of `plan` makes."""
    made = model.clone()
    run_recipe(made, plan.recipe, trials(model))
    return trials(model).damage(made)


def test_each_precision_is_worth_what_its_model_shows(tmp_path):
    """The damage is that of the model which a plan with it makes; time and size are those of its file."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    int8, *mixed = measured(model, tmp_path)
    assert int8.damage == pytest.approx(damage_of(model, SearchPlan((), (), method="mse")), rel=1e-4)
    assert (int8.step, int8.ms, int8.nbytes, int8.floats) == ("", 0.0, 0.0, ())
    assert mixed
    full = write_quantized(model, [], 0.0, tmp_path / "full.onnx", ON_CPU)
    for one in mixed:
        plan = SearchPlan((), (), method="mse", float_layers=one.floats)
        assert one.damage == pytest.approx(damage_of(model, plan), rel=1e-4)
        assert one.damage < int8.damage
        file = write_quantized(model, [], 0.0, tmp_path / "mixed.onnx", ON_CPU, tuple(one.floats))
        assert one.ms == pytest.approx(50 * (1 - fake_ms(file) / fake_ms(full)))
        assert one.ms < 0
        assert one.nbytes == full.stat().st_size - file.stat().st_size
        assert one.nbytes < 0
        file.unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["full.onnx"]


@pytest.fixture
def damages(monkeypatch):
    """The damage that int8 of each layer does, as squares add up; to be changed."""
    made_up = [0.1, 0.5, 0.3]

    def damage(_, floats=(), *, tables=True):
        return float(np.sqrt(sum(one**2 for layer, one in enumerate(made_up) if layer not in floats) + 0.01 * tables))

    monkeypatch.setattr(Int8Trials, "damage", damage)
    return made_up


def test_the_layers_that_int8_damages_most_stay_float(damages, tmp_path):
    """For the time that they take: the layer that took ten times as long comes last."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    int8, *mixed = measured(model, tmp_path)
    assert int8.damage == pytest.approx(np.sqrt(0.36))
    assert [one.floats for one in mixed] == [(1,), (1, 2)]
    assert [one.damage for one in mixed] == pytest.approx(np.sqrt([0.11, 0.02]))
    slow = measured(model, tmp_path, {"heads 1": Saving(40.0, 1.0)})
    assert [one.floats for one in slow[1:]] == [(2,), (0, 2)]


def test_float_layers_that_help_nothing_are_left_out(damages, tmp_path):
    """They only cost time."""
    damages[0] = damages[2] = 0.0
    assert [one.floats for one in measured(prepared("bert-ts17-sdpa", *EXACT), tmp_path)] == [(), (1,)]


def test_layers_that_share_everything_are_not_set_apart(tmp_path):
    """Nothing would be left to quantize."""
    (int8,) = measured(prepared("albert-ts17-sdpa", *EXACT), tmp_path)
    assert int8.damage > 0


def test_more_damage_for_less_time_comes_first():
    """Damages count squared; a time that is next to nothing counts as a tenth of the mean, unknown ones as equal."""
    assert rank([0.1, 0.2, 0.3], [1.0, 1.0, 1.0]) == [2, 1, 0]
    assert rank([0.1, 0.2, 0.3], [1.0, 1.0, 4.0]) == [1, 2, 0]
    assert rank([0.1, 0.2, 0.3], [0.0, 1.0, 1.0]) == [0, 2, 1]
    assert rank([0.05, 0.2, 0.3], [0.0, 1.0, 1.0]) == [2, 1, 0]
    assert rank([0.1, 0.3, 0.2], [0.0, 0.0, 0.0]) == [1, 2, 0]
