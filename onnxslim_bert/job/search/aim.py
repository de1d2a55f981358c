"""How much time and space the way to a target leaves."""

from onnxslim_bert.job.search.alternatives import Measurements
from onnxslim_bert.job.search.choose import reachable
from onnxslim_bert.job.search.combined import Budget
from onnxslim_bert.job.search.costs import Costs
from onnxslim_bert.job.search.targets import Targets

DEEPEST = 0.2  # share of the int8 model's time that is left at depth 1 when only a drop is given


def budget_at(costs: Costs, targets: Targets, depth: float) -> Budget:
    """The budget at `depth` between the int8 model and the targets, which may leave more than that takes."""

    def between(full: float, goal: float) -> float:
        return full + depth * (goal - full)

    nbytes = None if targets.nbytes is None else between(costs.full_bytes, targets.nbytes)
    if targets.speedup is not None:
        return Budget(between(costs.full_ms, costs.source_ms / targets.speedup), nbytes)
    return Budget(between(costs.full_ms, costs.full_ms * DEEPEST) if nbytes is None else None, nbytes)


def reach(options: Measurements, targets: Targets) -> float:
    """The greatest depth at which there is a plan; 1 when the targets can be reached, by the tables."""
    if reachable(options, budget_at(options.costs, targets, 1.0)):
        return 1.0
    within, beyond = 0.0, 1.0
    for _ in range(10):
        middle = (within + beyond) / 2
        within, beyond = (
            (middle, beyond) if reachable(options, budget_at(options.costs, targets, middle)) else (within, middle)
        )
    return within
