"""Which plan reaches a budget at the least predicted damage; numbers in, a plan out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.job.search.alternatives import Alternative, Measurements
from onnxslim_bert.job.search.bound import least_damage
from onnxslim_bert.job.search.chosen_steps import ChosenSteps
from onnxslim_bert.job.search.combined import Budget, Combination, combinations
from onnxslim_bert.job.search.plan import SearchPlan
from onnxslim_bert.rewriting.pruning.allocate import allocate
from onnxslim_bert.rewriting.pruning.sites import Site

BISECTIONS = 7  # of the weight of one bound against the other, and then of the budget


@dataclass(frozen=True)
class Prediction:
    """A plan and what the tables say of it."""

    plan: SearchPlan
    damage: float
    ms: float
    nbytes: float


def whole(options: Measurements, precision: Alternative | None = None) -> Prediction:
    """Nothing removed; int8 in every layer, or another of the precisions."""
    taken = ChosenSteps(Alternative(), Alternative(), Alternative(), precision or options.precisions[0])
    sites, costs = [one.site for one in options.sensitivities], options.costs
    plan = _plan(sites, [site.units for site in sites], taken, options.method)
    spent = costs.full_ms - taken.precision.ms, costs.full_bytes - taken.precision.nbytes
    return Prediction(plan, taken.precision.damage, *spent)


def choose(options: Measurements, budget: Budget) -> Prediction | None:
    """The plan within `budget` with the least predicted damage, squares of damages adding up; None when none fits.

    Where the whole int8 model fits, another one must do less damage.
    """
    best = whole(options) if budget.holds(options.costs.full_ms, options.costs.full_bytes) else None
    bounded = [(least_damage(table, budget), table) for table in combinations(options)]
    for bound, table in sorted(bounded, key=lambda pair: pair[0]):
        if bound == np.inf or (best is not None and bound >= best.damage):
            break  # and so are all that follow
        if (found := _narrowed(table, budget, options.method)) and (best is None or found.damage < best.damage):
            best = found
    return best


def reachable(options: Measurements, budget: Budget) -> bool:
    """Whether any plan is within `budget`."""
    return any(budget.holds(*table.spent([0] * len(table.found))) for table in combinations(options))


def _narrowed(table: Combination, budget: Budget, method: str) -> Prediction | None:
    """The best widths with the alternatives of `table`; None when even the narrowest are beyond the budget."""

    def square(picked: Sequence[int]) -> float:
        return float(sum(values[i] for values, i in zip(table.squares, picked, strict=True)))

    picked = min(_fitting(table, budget), key=square, default=None)
    if picked is None:
        return None
    counts = [steps[i] for steps, i in zip(table.ladders, picked, strict=True)]
    plan = _plan([one.site for one in table.found], counts, table.taken, method)
    return Prediction(plan, float(np.sqrt(square(picked) + table.damage**2)), *table.spent(picked))


def _fitting(table: Combination, budget: Budget) -> Iterator[list[int]]:
    """Widths within the budget, the best ones among them.

    One bound is a knapsack. Of two, a mixture is one: its best widths are the best of all if they hold both bounds
    (Glover 1975, https://doi.org/10.1287/opre.23.3.434), so its weight moves towards the bound that they break; when
    none holds both, the budget shrinks until both do.
    """
    if not budget.holds(*table.spent(narrowest := [0] * len(table.found))):
        return
    yield narrowest
    if not narrowest:
        return
    low, high = float(budget.ms is None), float(budget.nbytes is not None)
    weight = (low + high) / 2
    for _ in range(BISECTIONS):
        picked = allocate(table.mixed(budget, weight), table.squares, 1.0) or narrowest
        ms, nbytes = table.spent(picked)
        if budget.holds(ms, nbytes):
            yield picked
            return
        low, high = (weight, high) if Budget(budget.ms).holds(ms, nbytes) else (low, weight)
        weight = (low + high) / 2
    for end in {low, weight, high}:
        none, full = 0.0, 1.0
        for _ in range(BISECTIONS):
            tight = (none + full) / 2
            picked = allocate(table.mixed(budget, end), table.squares, tight) or narrowest
            none, full = (tight, full) if budget.holds(*table.spent(picked)) else (none, tight)
            if none == tight:
                yield picked


def _plan(sites: Sequence[Site], counts: Sequence[int], taken: ChosenSteps, method: str) -> SearchPlan:
    heads, neurons = (
        tuple(count for site, count in zip(sites, counts, strict=True) if site.kind == kind)
        for kind in ("heads", "neurons")
    )
    steps = taken.layers.step, taken.embedding.step, taken.tokens.step
    return SearchPlan(heads, neurons, *steps, method, taken.float_layers)
