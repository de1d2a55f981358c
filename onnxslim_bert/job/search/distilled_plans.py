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

    Of each number of dropped layers the best plan by the tables is taken, and of these the PLANS best. They are
    distilled on a part of `texts`; the one that then reaches speed and size with the least damage is distilled from its
    beginning on all of them, EPOCHS times. Layers count, because training mends a dropped layer better than its damage
    tells.

    made: builds and measures the model of a plan. Returns nothing where no plan reaches the targets by the tables.
    """
    aim, points = targets, list[MeasuredPoint]()
    asked, short = replace(targets, drop=None), min(texts, max(texts // SHORT, FEWEST))
    for _ in range(AIMS):
        plans = best_plans(options, budget_at(options.costs, aim, 1.0))
        tried = [(made(trained(plan, f"texts={short}")), plan) for plan in plans]
        points += [point for point, _ in tried]
        reaching = [pair for pair in tried if asked.met_by(pair[0].speedup, pair[0].nbytes, 0.0)]
        if reaching:
            best = min(reaching, key=lambda pair: pair[0].damage)[1]
            return [*points, made(trained(best, f"texts={texts},epochs={EPOCHS}"))]
        if not tried:
            break
        nearest = max((point for point, _ in tried), key=lambda point: point.speedup)
        aim = aim.beyond(targets, nearest.speedup, nearest.nbytes)
    return points


def best_plans(options: MeasuredOptions, budget: CostBudget) -> list[Prediction]:
    """The best plan within `budget` with each of the alternatives to drop layers, and of these the PLANS best.

    No two are alike; none where none fits.
    """
    found = [choose(replace(options, layers=[one]), budget) for one in options.layers]
    plans = {str(plan.plan.recipe): plan for plan in found if plan is not None}
    return sorted(plans.values(), key=lambda plan: plan.damage)[:PLANS]


def trained(prediction: Prediction, how: str) -> Prediction:
    """The same plan, distilled with the options `how`. What the tables predict is the damage before that."""
    return replace(prediction, plan=replace(prediction.plan, distill=f"distill{{{how}}}"))
