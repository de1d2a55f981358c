"""Plans beyond what refits reach: a few are distilled for a short time, and the best of them for the whole budget."""

from collections.abc import Callable
from dataclasses import replace

from onnxslim_bert.job.search.alternatives import MeasuredOptions
from onnxslim_bert.job.search.choose import Prediction, choose
from onnxslim_bert.job.search.depth import budget_at
from onnxslim_bert.job.search.frontier import MeasuredPoint
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.job.search.width_choices import CostBudget

PLANS = 3  # that are distilled for a short time
SHORT = 8  # the part of the texts that these are distilled on
FEWEST = 256  # texts of a short training, where the whole one has so many
EPOCHS = 3  # of the whole training: the teacher answers each text once, which takes as long as an epoch
AIMS = 3  # times that the targets are aimed at, when what was built misses what the tables said


def distil_plans(
    options: MeasuredOptions, targets: Targets, texts: int, made: Callable[[Prediction], MeasuredPoint]
) -> list[MeasuredPoint]:
    """The models of the best plans at `targets` of speed and size, distilled.

    Of a few plans (`best_plans`) those that reach speed and size once they are built (`_reaching`) are distilled on a
    part of `texts`; the one with the least damage then is distilled from its beginning on all of them, EPOCHS times.

    made: builds and measures the model of a plan. Returns all that was built; nothing is distilled where no plan
    reaches the targets.
    """
    points, reaching = list[MeasuredPoint](), list[Prediction]()
    for plan in best_plans(options, budget_at(options.costs, targets, 1.0)):
        built, reached = _reaching(options, plan, targets, made)
        points += built
        reaching += [reached] if reached is not None else []
    if not reaching:
        return points
    short = min(texts, max(texts // SHORT, FEWEST))
    tried = [(made(trained(plan, f"texts={short}")), plan) for plan in reaching]
    best = min(tried, key=lambda pair: pair[0].damage)[1]
    return [*points, *(point for point, _ in tried), made(trained(best, f"texts={texts},epochs={EPOCHS}"))]


def _reaching(
    options: MeasuredOptions, plan: Prediction, targets: Targets, made: Callable[[Prediction], MeasuredPoint]
) -> tuple[list[MeasuredPoint], Prediction | None]:
    """The models that were built, untrained, of `plan` and of plans with the same layers and stream that aim further,
    until one is MARGIN beyond the targets of speed and size; and the plan of the last one that reaches them, None where
    none does.

    Training changes neither speed nor size, and takes longer than to find out.
    """
    alike = replace(
        options,
        layers=[one for one in options.layers if one.step == plan.plan.layers],
        streams=[one for one in options.streams if one.step == plan.plan.stream],
    )
    asked = replace(targets, drop=None)
    surely = asked.beyond(asked, asked.speedup or 1.0, asked.nbytes or 1.0)  # MARGIN further
    points, reached, found, aim = list[MeasuredPoint](), None, plan, asked
    for _ in range(AIMS):
        points.append(made(found))
        speedup, nbytes = points[-1].speedup, points[-1].nbytes
        reached = found if asked.met_by(speedup, nbytes, 0.0) else reached
        aim = aim.beyond(asked, speedup, nbytes)
        further = choose(alike, budget_at(options.costs, aim, 1.0))
        if further is None or surely.met_by(speedup, nbytes, 0.0):
            break
        found = further
    return points, reached


def best_plans(options: MeasuredOptions, budget: CostBudget) -> list[Prediction]:
    """The best plans within `budget` by the tables: of each number of dropped layers and each width of the stream one.

    Of these the PLANS best, and the best with a narrower stream where that is none of them. Layers and stream count for
    themselves, because training mends what they lose better than their damage tells. No two are alike; none where none
    fits.
    """
    pairs = [(layers, stream) for layers in options.layers for stream in options.streams]
    found = [choose(replace(options, layers=[layers], streams=[stream]), budget) for layers, stream in pairs]
    plans = {str(plan.plan.recipe): plan for plan in found if plan is not None}
    ranked = sorted(plans.values(), key=lambda plan: plan.damage)
    narrow = [plan for plan in ranked if plan.plan.stream]
    best = ranked[:PLANS]
    return best if any(plan in best for plan in narrow) else best + narrow[:1]


def trained(prediction: Prediction, how: str) -> Prediction:
    """The same plan, distilled with the options `how`, as it was where that brings nothing.

    What the tables predict is the damage before that.
    """
    return replace(prediction, plan=replace(prediction.plan, distill=f"distill{{{how}}}?"))
