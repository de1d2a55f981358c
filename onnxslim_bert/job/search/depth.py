"""Depth: how far a model lies on the way from the int8 model with nothing removed (0) to the targets (1)."""

from onnxslim_bert.job.search.alternatives import MeasuredOptions
from onnxslim_bert.job.search.choose import reachable
from onnxslim_bert.job.search.costs import Costs
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.job.search.width_choices import CostBudget

DEEPEST = 0.2  # share of the int8 model's time that is left at depth 1 when only a drop is given


def budget_at(costs: Costs, targets: Targets, depth: float) -> CostBudget:
    """The budget at `depth`: on a straight line from what the int8 model costs to what the targets allow.

    Example: the int8 model takes 10 ms and a target allows 6 ms: depth 0.5 allows 8 ms. Targets that allow more than
    the int8 model costs give a budget above it. Without a target of speed or size, depth 1 is DEEPEST of its time.
    """

    def between(full: float, goal: float) -> float:
        return full + depth * (goal - full)

    nbytes = None if targets.nbytes is None else between(costs.full_bytes, targets.nbytes)
    if targets.speedup is not None:
        return CostBudget(between(costs.full_ms, costs.source_ms / targets.speedup), nbytes)
    return CostBudget(between(costs.full_ms, costs.full_ms * DEEPEST) if nbytes is None else None, nbytes)


def reach(options: MeasuredOptions, targets: Targets) -> float:
    """The greatest depth at which some plan holds the budget, by the tables; 1 when the targets can be reached.

    Found by ten bisections, to within 1/1024, and never above the true one.
    """
    if reachable(options, budget_at(options.costs, targets, 1.0)):
        return 1.0
    within, beyond = 0.0, 1.0
    for _ in range(10):
        middle = (within + beyond) / 2
        within, beyond = (
            (middle, beyond) if reachable(options, budget_at(options.costs, targets, middle)) else (within, middle)
        )
    return within
