"""Which plans are distilled, and which of them to the end."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_up import options

from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.choose import choose
from onnxslim_bert.job.search.depth import budget_at
from onnxslim_bert.job.search.distilled_plans import AIMS, choosers, distil_plans
from onnxslim_bert.job.search.even_plans import even_plan
from onnxslim_bert.job.search.frontier import MeasuredPoint
from onnxslim_bert.job.search.targets import MARGIN, Targets
from onnxslim_bert.job.search.width_choices import CostBudget

LAYERS = tuple(
    Alternative(f"drop-layers{{layers={gone}}}" if gone else "", damage, ms, nbytes, (int(gone),) if gone else ())
    for gone, damage, ms, nbytes in (("", 0, 0, 0), ("0", 0.2, 2, 1500), ("1", 0.4, 2, 1500), ("2", 3.0, 2, 1500))
)
NARROW = Alternative(), Alternative("prune-hidden{width=64}", 5.0, 3.0, 3000.0, stream=0.5)
FAST = Targets(5.0)


class Workshop:
    """Builds models of plans and notes these; models are slower than foretold by factors that depend on the layers, and
    each takes `more` milliseconds beside.

    damages: of trained ones, by their layers; others have 0.3.
    """

    def __init__(self, given, slower=None, damages=None, more=0.0):
        self.options, self.slower, self.damages, self.more = given, slower or {}, damages or {}, more
        self.made, self.shown = [], []

    def show(self, *report):
        self.shown.append(report)

    def __call__(self, prediction, progress):
        plan = prediction.plan
        progress("distilling: loss 1", 1, 2)
        self.made.append(plan)
        ms = prediction.ms * self.slower.get(plan.layers, 1.0) + self.more
        speedup, nbytes = self.options.costs.source_ms / ms, round(prediction.nbytes)
        damage = self.damages.get(plan.layers, 0.3) if plan.distill else 0.3
        return MeasuredPoint(str(plan.recipe), Path("x"), nbytes, ms, speedup, damage, 0.0, 0.0)

    @property
    def taught(self):
        return [(plan.layers, plan.distill) for plan in self.made if plan.distill]


def test_an_even_plan_for_every_depth_the_best_by_the_tables_and_the_best_with_a_narrower_stream():
    found = options(3, layers=LAYERS, streams=NARROW)
    for budget in (CostBudget(7.0), CostBudget(None, 7000.0), CostBudget(8.0, 8000.0)):
        plans = [chosen(budget) for chosen in choosers(found)]
        evens = [even_plan(replace(found, layers=[layers]), budget) for layers in LAYERS]
        assert [plan.plan.layers for plan in evens] == [layers.step for layers in LAYERS]
        assert plans == [*evens, choose(replace(found, streams=NARROW[:1]), budget), plans[-1]]
        assert plans[-1].plan.stream == NARROW[1].step
        assert all(budget.holds(plan.ms, plan.nbytes) for plan in plans)
    assert not any(chosen(CostBudget(0.001)) for chosen in choosers(found))


def test_no_stream_that_was_not_measured():
    assert len(choosers(options(3, layers=LAYERS))) == len(LAYERS) + 1


def test_the_plan_that_training_mends_best_is_trained_to_the_end():
    """Which is not the one that the tables like best; those that are too slow are not trained at all."""
    damages, slower = {LAYERS[1].step: 0.02, LAYERS[2].step: 0.01}, {LAYERS[2].step: 9.0, LAYERS[3].step: 9.0}
    given = options(3, layers=LAYERS)
    made = Workshop(given, slower, damages)
    points = distil_plans(given, FAST, 8000, made, made.show)
    assert {layers for layers, _ in made.taught} == {"", LAYERS[1].step}
    assert {how for _, how in made.taught[:-1]} == {"distill{texts=500}?"}
    assert made.taught[-1] == (LAYERS[1].step, "distill{texts=8000,epochs=3}?")
    assert len(points) == len(made.made)
    assert points[-1].recipe.index("distill") < points[-1].recipe.index("quantize-static")


def test_what_two_kinds_have_in_common_is_trained_once():
    given = options(3, layers=LAYERS[:1] * 3)
    made = Workshop(given)
    distil_plans(given, FAST, 8000, made, made.show)
    short = [plan for plan in made.made if plan.distill == "distill{texts=500}?"]
    assert len(short) == len({*short})


@pytest.mark.parametrize(("slower", "more"), [(0.8, 0), (0.9, 0), (1, 0), (1.1, 0), (1.3, 0), (0.8, 2), (1.1, -1)])
def test_a_plan_is_as_wide_as_the_model_that_was_built_of_it_allows(slower, more):
    """Whether tables promise too much or too little; as much beyond the targets as busy machines make a difference."""
    given = options(3, seed=1, layers=LAYERS[1:2])
    made = Workshop(given, {LAYERS[1].step: slower}, more=more)
    distil_plans(given, FAST, 8000, made, made.show)
    surely = budget_at(given.costs, Targets(FAST.speedup * MARGIN), 1.0).ms
    widest = even_plan(given, CostBudget((surely - more) / slower))
    least = choose(given, CostBudget((surely - more) / slower))
    trained = [replace(plan, distill="") for plan in made.made if plan.distill]
    assert {*trained} == {widest.plan, least.plan}
    assert sum(not plan.distill for plan in made.made) <= 2 * AIMS


def test_what_is_a_little_beyond_the_targets_is_not_built_wider():
    """Though by what it costs a wider one would fit, by one step of a layer's ladder."""
    surely, slower, seen = budget_at(options().costs, Targets(FAST.speedup * MARGIN), 1.0).ms, 0.985, 0
    for seed in range(40):
        given = options(3, seed)
        plan, wider = (choose(given, CostBudget(ms)) for ms in (surely, surely / slower))
        if plan == wider or plan.ms * slower * MARGIN < surely:
            continue
        seen += 1
        made = Workshop(given, {"": slower})
        distil_plans(given, FAST, 8000, made, made.show)
        assert wider.plan not in made.made
    assert seen


def test_the_bar_goes_as_far_as_texts_were_seen():
    """Short trainings on 500 texts and one on three times 8,000; each shown as it begins and half way through it."""
    slower = {LAYERS[2].step: 9.0, LAYERS[3].step: 9.0}
    given = options(3, layers=LAYERS)
    made = Workshop(given, slower)
    distil_plans(given, FAST, 8000, made, made.show)
    short = len(made.taught) - 1
    shown = [(task, done) for task, done, _ in made.shown if task.startswith("distilling plans")]
    whole, seen = short * 500 + 24000, [500 * half / 2 for half in range(2 * short)]
    seen += [500 * short, 500 * short + 12000]
    assert [done for _, done in shown] == [round(1000 * texts / whole) for texts in seen]
    assert [task for task, _ in shown] == ["distilling plans", "distilling plans: distilling: loss 1"] * (short + 1)
    building = [done for task, done, _ in made.shown if task.startswith("building plans")]
    assert building == sorted(building)


def test_nothing_is_trained_where_no_plan_is_fast_enough():
    given = options(3, layers=LAYERS)
    made = Workshop(given, dict.fromkeys((one.step for one in LAYERS), 9.0))
    assert len(distil_plans(given, FAST, 8000, made, made.show)) == len(made.made)
    assert made.made
    assert not made.taught


@pytest.mark.parametrize(("texts", "short"), [(100, 100), (1000, 256), (80000, 5000)])
def test_a_short_training_has_texts_to_learn_from(texts, short):
    given = options(3)
    made = Workshop(given)
    distil_plans(given, FAST, texts, made, made.show)
    assert {how for _, how in made.taught[:-1]} == {f"distill{{texts={short}}}?"}
    assert made.taught[-1][1] == f"distill{{texts={texts},epochs=3}}?"
