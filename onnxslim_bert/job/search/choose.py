"""Choose the plan that holds a budget at the least predicted damage; numbers in, a plan out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.job.search.alternatives import Alternative, MeasuredOptions
from onnxslim_bert.job.search.bound import least_damage
from onnxslim_bert.job.search.combination import Combination
from onnxslim_bert.job.search.matrix_bits import Packing
from onnxslim_bert.job.search.search_plan import SearchPlan
from onnxslim_bert.job.search.width_choices import CostBudget, SiteChoice, WidthChoices, width_choices
from onnxslim_bert.passes.pack_weights import WHOLE, PackWeights
from onnxslim_bert.rewriting.pruning.allocate import allocate

BISECTIONS = 7  # of the weight of one bound against the other, and then of the budget


@dataclass(frozen=True)
class Prediction:
    """A plan and what the tables predict of its model: damage, milliseconds a run, bytes of the file."""

    plan: SearchPlan
    damage: float
    ms: float
    nbytes: float


def whole(options: MeasuredOptions, precision: Alternative | None = None) -> Prediction:
    """The plan that removes nothing: int8 in every layer, or with `precision`, which leaves some in float32."""
    combination = Combination(Alternative(), Alternative(), Alternative(), precision or options.precisions[0])
    costs = options.costs
    wide = [SiteChoice(one.site, one.site.units, Packing(), ()) for one in options.sensitivities]
    plan = _plan(wide, combination, options.method)
    spent = costs.full_ms - combination.precision.ms, costs.full_bytes - combination.precision.nbytes
    return Prediction(plan, combination.precision.damage, *spent)


def choose(options: MeasuredOptions, budget: CostBudget) -> Prediction | None:
    """The plan within `budget` with the least predicted damage; None when none fits.

    Damages add up as squares: a step of 0.3 and widths of 0.4 make a plan of 0.5. Where the whole int8 model fits, it
    is the choice unless another plan does less damage. Combinations are tried in the order of their lower bounds
    (`least_damage`), until a bound is no better than what was found.
    """
    best = whole(options) if budget.holds(options.costs.full_ms, options.costs.full_bytes) else None
    bounded = [(least_damage(table, budget), table) for table in width_choices(options)]
    for bound, table in sorted(bounded, key=lambda pair: pair[0]):
        if bound == np.inf or (best is not None and bound >= best.damage):
            break  # and so are all that follow
        if (found := _narrowed(table, budget, options.method)) and (best is None or found.damage < best.damage):
            best = found
    return best


def reachable(options: MeasuredOptions, budget: CostBudget) -> bool:
    """Whether any plan is within `budget`."""
    return any(budget.holds(*table.spent(table.narrowest)) for table in width_choices(options))


def _narrowed(table: WidthChoices, budget: CostBudget, method: str) -> Prediction | None:
    """The plan of the least damage with the alternatives of `table`; None when even its narrowest is over budget."""
    picked = min(_fitting(table, budget), key=table.square, default=None)
    return None if picked is None else predicted(table, picked, method)


def predicted(table: WidthChoices, picked: Sequence[int], method: str) -> Prediction:
    """The plan with the widths `picked`, an index into each ladder of `table`, and what is expected of it."""
    choices = [steps[i] for steps, i in zip(table.ladders, picked, strict=True)]
    plan = _plan(choices, table.combination, method)
    return Prediction(plan, float(np.sqrt(table.square(picked) + table.damage**2)), *table.spent(picked))


def _fitting(table: WidthChoices, budget: CostBudget) -> Iterator[list[int]]:
    """Choices of widths within the budget, each an index into every ladder; the caller takes the best.

    With one bound, time or size, this is a knapsack problem (`allocate`). Two bounds are mixed into one cost
    (`WidthChoices.mixed`): when the best widths by the mixture hold both bounds, none are better (Glover 1975,
    https://doi.org/10.1287/opre.23.3.434). The weight of the mixture is bisected towards the bound that they break. If
    no weight gives widths that hold both, the mixed budget itself is bisected, at the last weights, until both hold.
    """
    if not budget.holds(*table.spent(narrowest := table.narrowest)):
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
        low, high = (weight, high) if CostBudget(budget.ms).holds(ms, nbytes) else (low, weight)
        weight = (low + high) / 2
    for end in {low, weight, high}:
        none, full = 0.0, 1.0
        for _ in range(BISECTIONS):
            tight = (none + full) / 2
            picked = allocate(table.mixed(budget, end), table.squares, tight) or narrowest
            none, full = (tight, full) if budget.holds(*table.spent(picked)) else (none, tight)
            if none == tight:
                yield picked


def _plan(choices: Sequence[SiteChoice], combination: Combination, method: str) -> SearchPlan:
    heads, neurons = (
        tuple(one.units for one in choices if one.site is not None and one.site.kind == kind)
        for kind in ("heads", "neurons")
    )
    steps = combination.layers.step, combination.embedding.step, combination.tokens.step
    packed, stream = _packed(choices), combination.stream.step
    return SearchPlan(heads, neurons, *steps, method, combination.float_layers, weights=packed, stream=stream)


def _packed(choices: Sequence[SiteChoice]) -> str:
    """The step that stores int8 matrices in the bits chosen, "" where all stay whole.

    Matrices are counted as they are left: those of dropped layers and of layers in float32 are none of them.
    """
    chosen = {number: bits for one in choices for number, bits in one.packing.bits}
    if not chosen:
        return ""
    bits = tuple(chosen.get(number, WHOLE) for number in sorted(number for one in choices for number in one.matrices))
    return str(PackWeights(bits[:1] if {*bits} == {bits[0]} else bits))
