"""Plans beyond what refits reach: a few are distilled for a short time, and the best of them for the whole budget."""

from collections.abc import Callable, Sequence
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
from onnxslim_bert.progress import Progress, Stage

SHORT = 16  # the part of the texts that plans are distilled on to choose among them
FEWEST = 256  # texts of a short training, where the whole one has so many
EPOCHS = 3  # of the whole training: the teacher answers each text once, which takes as long as an epoch
AIMS = 4  # models built untrained of one kind of plan, the later ones by what the earlier ones turned out to cost

Chooser = Callable[[CostBudget], Prediction | None]  # the plan of one kind for a budget; None where none fits
Made = Callable[[Prediction, Progress], MeasuredPoint]  # builds and measures the model of a plan, and reports how far


def distil_plans(
    options: MeasuredOptions, targets: Targets, texts: int, made: Made, progress: Progress
) -> list[MeasuredPoint]:
    """The models of the best plans at `targets` of speed and size, distilled.

    Of each kind of plan (`choosers`) the one that comes closest to speed and size once it is built (`_closest`) is
    distilled on a part of `texts`; the one with the least damage then is distilled from its beginning on all of them,
    EPOCHS times.

    Returns all that was built; nothing is distilled where no plan reaches the targets.
    """
    points, reaching = list[MeasuredPoint](), dict[str, Prediction]()
    kinds = choosers(options)
    building = Stage(progress, "building plans", len(kinds))
    for chosen in kinds:
        built, reached = _closest(chosen, options.costs, targets, made, building.step())
        points += built
        reaching |= {} if reached is None else {str(reached.plan.recipe): reached}
    if not reaching:
        return points
    short = min(texts, max(texts // SHORT, FEWEST))
    training = Stage(progress, "distilling plans", short * len(reaching) + texts * EPOCHS, "distilling")
    tried = [(made(trained(plan, f"texts={short}"), training.step(short)), plan) for plan in reaching.values()]
    best = min(tried, key=lambda pair: pair[0].damage)[1]
    whole = made(trained(best, f"texts={texts},epochs={EPOCHS}"), training.step(texts * EPOCHS))
    return [*points, *(point for point, _ in tried), whole]


def choosers(options: MeasuredOptions) -> list[Chooser]:
    """The kinds of plans: an even one for each way to drop layers, the one that the tables like best, and the one that
    they like best with a narrower stream.

    Layers and stream count for themselves, because training mends what they lose better than their damage tells.
    """
    evens = [partial(even_plan, replace(options, layers=[layers])) for layers in options.layers]
    streams = [part for part in (options.streams[:1], options.streams[1:]) if part]
    return [*evens, *(partial(choose, replace(options, streams=part)) for part in streams)]


def _closest(
    chosen: Chooser, costs: Costs, targets: Targets, made: Made, progress: Progress
) -> tuple[list[MeasuredPoint], Prediction | None]:
    """The models that were built, untrained, of plans of one kind, and the plan of least damage whose model reaches the
    targets of speed and size: MARGIN beyond them if one does, as no machine is quiet; None where none does.

    Training changes neither speed nor size, and takes longer than to find out. None is built after one that is MARGIN
    beyond the targets and not twice as far, which is as wide as they allow. Each budget is what the tables say of
    models that cost what is asked, by what those before turned out to cost (`_by_tables`).
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
        built[plan] = point = made(plan, progress)
        if _reached(surely, point) and not _reached(further, point):
            break
        ms = [(plan.ms, costs.source_ms / point.speedup) for plan, point in built.items()]
        nbytes = [(plan.nbytes, float(point.nbytes)) for plan, point in built.items()]
        asks = (allowed.ms, ms), (allowed.nbytes, nbytes)
        budget = CostBudget(*(cost and _by_tables(cost, seen) for cost, seen in asks))
    for goal in (surely, asked):
        reaching = [plan for plan, point in built.items() if _reached(goal, point)]
        if reaching:
            return [*built.values()], min(reaching, key=lambda plan: plan.damage)
    return [*built.values()], None


def _by_tables(cost: float, seen: Sequence[tuple[float, float]]) -> float:
    """What is to be predicted of a model that really costs `cost`, on the line through the two nearest that were seen.

    seen: of each what was predicted, and what it cost. The line goes through the nearest and nothing where there is
    one, or where what was predicted to cost more cost less.
    Example: 10 were predicted and it cost 12, 8 and it cost 11: for one that costs 9, 4 are.
    """
    (predicted, real), (other, others) = [*sorted(seen, key=lambda pair: abs(pair[1] - cost)), (0.0, 0.0)][:2]
    rises = (predicted - other) * (real - others) > 0
    return predicted + (cost - real) * ((predicted - other) / (real - others) if rises else predicted / real)


def _reached(targets: Targets, point: MeasuredPoint) -> bool:
    return targets.met_by(point.speedup, point.nbytes, 0.0)


def trained(prediction: Prediction, how: str) -> Prediction:
    """The same plan, distilled with the options `how`, as it was where that brings nothing.

    What the tables predict is the damage before that.
    """
    return replace(prediction, plan=replace(prediction.plan, distill=f"distill{{{how}}}?"))
