"""Plans beyond what refits reach: a few are distilled for a short time, and the best of them for the whole budget."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from onnxslim_bert.job.search.alternatives import MeasuredOptions
from onnxslim_bert.job.search.choose import Prediction, choose
from onnxslim_bert.job.search.costs import Costs
from onnxslim_bert.job.search.depth import budget_at
from onnxslim_bert.job.search.even_plans import even_plan
from onnxslim_bert.job.search.frontier import MeasuredPoint
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.job.search.width_choices import CostBudget

SHORT = 16  # the part of the texts that plans are distilled on to choose among them
FEWEST = 256  # texts of a short training, where the whole one has so many
EPOCHS = 3  # of the whole training: the teacher answers each text once, which takes as long as an epoch
AIMS = 3  # models built untrained of one kind of plan, the later ones by what the earlier ones turned out to cost

Chooser = Callable[[CostBudget], Prediction | None]  # the plan of one kind for a budget; None where none fits
Made = Callable[[Prediction], MeasuredPoint]  # builds and measures the model of a plan


def distil_plans(options: MeasuredOptions, targets: Targets, texts: int, made: Made) -> list[MeasuredPoint]:
    """The models of the best plans at `targets` of speed and size, distilled.

    Of each kind of plan (`choosers`) the one that comes closest to speed and size once it is built (`_closest`) is
    distilled on a part of `texts`; the one with the least damage then is distilled from its beginning on all of them,
    EPOCHS times.

    Returns all that was built; nothing is distilled where no plan reaches the targets.
    """
    points, reaching = list[MeasuredPoint](), dict[str, Prediction]()
    for chosen in choosers(options):
        built, reached = _closest(chosen, options.costs, targets, made)
        points += built
        reaching |= {} if reached is None else {str(reached.plan.recipe): reached}
    if not reaching:
        return points
    short = min(texts, max(texts // SHORT, FEWEST))
    tried = [(made(trained(plan, f"texts={short}")), plan) for plan in reaching.values()]
    best = min(tried, key=lambda pair: pair[0].damage)[1]
    return [*points, *(point for point, _ in tried), made(trained(best, f"texts={texts},epochs={EPOCHS}"))]


def choosers(options: MeasuredOptions) -> list[Chooser]:
    """The kinds of plans: an even one for each way to drop layers, the one that the tables like best, and the one that
    they like best with a narrower stream.

    Layers and stream count for themselves, because training mends what they lose better than their damage tells.
    """
    evens = [partial(even_plan, replace(options, layers=[layers])) for layers in options.layers]
    streams = [part for part in (options.streams[:1], options.streams[1:]) if part]
    return [*evens, *(partial(choose, replace(options, streams=part)) for part in streams)]


def _closest(
    chosen: Chooser, costs: Costs, targets: Targets, made: Made
) -> tuple[list[MeasuredPoint], Prediction | None]:
    """The models that were built, untrained, of plans of one kind, and the plan of least damage whose model reaches the
    targets of speed and size: MARGIN beyond them if one does, as no machine is quiet; None where none does.

    Training changes neither speed nor size, and takes longer than to find out. None is built after one that is MARGIN
    beyond the targets and not twice as far, which is as wide as they allow. Each budget is what the targets allow by
    what the model before turned out to cost, beside what was predicted of it.
    Example: it takes 9 ms where 8 were predicted, and 10 are allowed: the next may cost 8.9 by the tables.
    """
    asked = replace(targets, drop=None)
    surely = asked.beyond(asked, asked.speedup or 1.0, asked.nbytes or 1.0)
    further = surely.beyond(surely, surely.speedup or 1.0, surely.nbytes or 1.0)
    budget = allowed = budget_at(costs, surely, 1.0)
    built = dict[Prediction, MeasuredPoint]()
    for _ in range(AIMS):
        plan = chosen(budget)
        if plan is None or plan in built:
            break
        built[plan] = point = made(plan)
        if _reached(surely, point) and not _reached(further, point):
            break
        ms = allowed.ms and allowed.ms * plan.ms * point.speedup / costs.source_ms
        budget = CostBudget(ms, allowed.nbytes and allowed.nbytes * plan.nbytes / point.nbytes)
    for goal in (surely, asked):
        reaching = [plan for plan, point in built.items() if _reached(goal, point)]
        if reaching:
            return [*built.values()], min(reaching, key=lambda plan: plan.damage)
    return [*built.values()], None


def _reached(targets: Targets, point: MeasuredPoint) -> bool:
    return targets.met_by(point.speedup, point.nbytes, 0.0)


def trained(prediction: Prediction, how: str) -> Prediction:
    """The same plan, distilled with the options `how`, as it was where that brings nothing.

    What the tables predict is the damage before that.
    """
    return replace(prediction, plan=replace(prediction.plan, distill=f"distill{{{how}}}?"))
