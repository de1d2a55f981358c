"""Which plans are distilled, and which of them to the end."""

from pathlib import Path

import pytest
from made_up import options

from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.distilled_plans import PLANS, best_plans, distil_plans
from onnxslim_bert.job.search.frontier import MeasuredPoint
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.job.search.width_choices import CostBudget

LAYERS = tuple(
    Alternative(f"drop-layers{{layers={gone}}}" if gone else "", damage, ms, nbytes, (int(gone),) if gone else ())
    for gone, damage, ms, nbytes in (("", 0, 0, 0), ("0", 0.2, 2, 1500), ("1", 0.4, 2, 1500), ("2", 3.0, 2, 1500))
)


def test_one_plan_for_each_way_to_drop_layers_and_the_least_damaged_of_these():
    found = best_plans(options(3, layers=LAYERS), CostBudget(7.0))
    assert len(found) == PLANS
    assert len({plan.plan.layers for plan in found}) == PLANS
    assert [plan.damage for plan in found] == sorted(plan.damage for plan in found)
    assert all(plan.ms <= 7.0 for plan in found)
    assert LAYERS[3].step not in {plan.plan.layers for plan in found}


def test_a_plan_with_a_narrower_stream_is_tried_though_the_tables_like_others_better():
    """Where one fits; one that the tables like is among the others."""
    for damage, count in ((5.0, PLANS + 1), (0.001, PLANS)):
        streams = Alternative(), Alternative("prune-hidden{width=64}", damage, 3.0, 3000.0, stream=0.5)
        found = best_plans(options(3, layers=LAYERS, streams=streams), CostBudget(7.0))
        assert len(found) == count
        assert any(plan.plan.stream for plan in found)
        assert all(plan.ms <= 7.0 for plan in found)


def test_no_two_plans_are_alike_and_none_is_over_budget():
    assert len(best_plans(options(3, layers=LAYERS[:1] * 3), CostBudget(7.0))) == 1
    assert best_plans(options(3, layers=LAYERS), CostBudget(0.001)) == []


def measuring(made, speeds, damages):
    """Notes plans; speeds: by layers, of each model in turn and then as the last one. damages: of trained ones."""

    def measured(prediction):
        plan = prediction.plan
        seen = sum(other.layers == plan.layers for other in made)
        made.append(plan)
        speedup = speeds[plan.layers][min(seen, len(speeds[plan.layers]) - 1)]
        damage = damages.get(plan.layers, 0.3) if plan.distill else 0.3
        return MeasuredPoint(str(plan.recipe), Path("x"), 5000, 8.0, speedup, damage, 0.0, 0.0)

    return measured


def test_the_plan_that_training_mends_best_is_trained_to_the_end():
    """Which is not the one that the tables like best, nor one that is too slow, which is not trained at all."""
    made, damages = [], {LAYERS[1].step: 0.02, LAYERS[2].step: 0.01}
    speeds = {"": [5.2], LAYERS[1].step: [5.2], LAYERS[2].step: [4.9]}
    points = distil_plans(options(3, layers=LAYERS), Targets(5.0), 8000, measuring(made, speeds, damages))
    taught = [(plan.layers, plan.distill) for plan in made if plan.distill]
    assert sorted(taught[:-1]) == [(layers, "distill{texts=1000}?") for layers in ("", LAYERS[1].step)]
    assert taught[-1] == (LAYERS[1].step, "distill{texts=8000,epochs=3}?")
    assert len(points) == len(made)
    assert points[-1].recipe.index("distill") < points[-1].recipe.index("quantize-static")


def test_a_plan_that_misses_the_targets_is_aimed_further_before_it_is_trained():
    """Until it is two hundredths beyond them: what is trained is measured again, and no machine is quiet."""
    made = []
    speeds = {"": [4.5, 5.0, 5.3], LAYERS[1].step: [3.0], LAYERS[2].step: [3.0]}
    distil_plans(options(3, layers=LAYERS), Targets(5.0), 8000, measuring(made, speeds, {}))
    aimed = [plan for plan in made if not plan.layers]
    assert [plan.distill for plan in aimed] == ["", "", "", "distill{texts=1000}?", "distill{texts=8000,epochs=3}?"]
    units = [sum(plan.heads) * 24 + sum(plan.neurons) for plan in aimed]
    assert units[0] > units[2] == units[3] == units[4]
    assert not any(plan.distill for plan in made if plan.layers)


def test_nothing_is_trained_where_no_plan_is_fast_enough():
    made = []
    speeds = {one.step: [4.9] for one in LAYERS}
    assert len(distil_plans(options(3, layers=LAYERS), Targets(5.0), 8000, measuring(made, speeds, {}))) == len(made)
    assert made
    assert not any(plan.distill for plan in made)


@pytest.mark.parametrize(("texts", "short"), [(100, 100), (1000, 256), (80000, 10000)])
def test_a_short_training_has_texts_to_learn_from(texts, short):
    recipes = []

    def measured(prediction):
        recipes.append(str(prediction.plan.recipe))
        return MeasuredPoint(recipes[-1], Path("x"), 5000, 8.0, 5.0, 0.1, 0.0, 0.0)

    distil_plans(options(3), Targets(4.9), texts, measured)
    assert f"distill{{texts={short}}}" in recipes[1].replace("distill,", "distill{texts=24000},")
    assert f"distill{{texts={texts},epochs=3.0}}" in recipes[-1]
