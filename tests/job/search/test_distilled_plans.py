"""Which plans are distilled, and which of them to the end."""

from dataclasses import replace
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


def test_no_two_plans_are_alike_and_none_is_over_budget():
    assert len(best_plans(options(3, layers=LAYERS[:1] * 3), CostBudget(7.0))) == 1
    assert best_plans(options(3, layers=LAYERS), CostBudget(0.001)) == []


def test_the_plan_that_training_mends_best_is_trained_to_the_end():
    """Which is not the one that the tables like best, nor one that is too slow."""
    made = []

    def measured(prediction):
        made.append(prediction.plan)
        good = {"drop-layers{layers=0}": (5.0, 0.02), "drop-layers{layers=1}": (4.9, 0.01)}
        speedup, damage = good.get(prediction.plan.layers, (5.0, 0.3))
        return MeasuredPoint(str(prediction.plan.recipe), Path("x"), 5000, 8.0, speedup, damage, 0.0, 0.0)

    points = distil_plans(options(3, layers=LAYERS), Targets(5.0), 8000, measured)
    assert [plan.distill for plan in made] == ["distill{texts=1000}"] * PLANS + ["distill{texts=8000,epochs=3}"]
    assert made[-1] == replace(made[-1], layers="drop-layers{layers=0}")
    assert len(points) == len(made)
    assert "distill{texts=8000,epochs=3.0},canonicalize" not in points[-1].recipe
    assert points[-1].recipe.index("distill") < points[-1].recipe.index("quantize-static")


@pytest.mark.parametrize(("texts", "short"), [(100, 100), (1000, 256), (80000, 10000)])
def test_a_short_training_has_texts_to_learn_from(texts, short):
    recipes = []

    def measured(prediction):
        recipes.append(str(prediction.plan.recipe))
        return MeasuredPoint(recipes[-1], Path("x"), 5000, 8.0, 5.0, 0.1, 0.0, 0.0)

    distil_plans(options(3), Targets(5.0), texts, measured)
    assert f"distill{{texts={short}}}" in recipes[0].replace("distill,", "distill{texts=24000},")
    assert f"distill{{texts={texts},epochs=3.0}}" in recipes[-1]
