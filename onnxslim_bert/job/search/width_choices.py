"""The widths that can still be chosen once one alternative of each kind is taken."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.job.search.alternatives import MeasuredOptions
from onnxslim_bert.job.search.combination import Combination
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity
from onnxslim_bert.rewriting.pruning.widths import ladder

GRID = {"heads": 1, "neurons": 32}  # units between one width and the next


@dataclass(frozen=True)
class CostBudget:
    """What a model may cost: at most `ms` milliseconds a run and `nbytes` bytes; None is no bound."""

    ms: float | None = None
    nbytes: float | None = None

    def holds(self, ms: float, nbytes: float) -> bool:
        """Whether a model of `ms` milliseconds and `nbytes` bytes is within the budget."""
        return (self.ms is None or ms <= self.ms) and (self.nbytes is None or nbytes <= self.nbytes)


@dataclass(frozen=True)
class WidthChoices:
    """The widths to choose from with one combination of alternatives: what each does and costs.

    found: the measured sensitivity of every site that is not in a dropped layer; the lists below are in its order.
    ladders: the numbers of units that a site may keep, ascending. squares: the squared damage of each [widths].
    ms, nbytes: what each costs more than the narrowest [widths]. least_ms, least_bytes: the cost of the whole model
    with every site at its narrowest.

    Example: ladder [1, 2, 4], a unit of 1 ms: ms [0, 1, 3]. A choice, `picked`, is an index into each ladder.
    """

    combination: Combination
    found: list[Sensitivity]
    ladders: list[list[int]]
    squares: list[Array]
    ms: list[Array]
    nbytes: list[Array]
    least_ms: float
    least_bytes: float

    @property
    def damage(self) -> float:
        """The damage of the alternatives alone: the root of the sum of their squared damages."""
        return float(np.sqrt(sum(one.damage**2 for one in self.combination.every)))

    def spent(self, picked: Sequence[int]) -> tuple[float, float]:
        """Milliseconds and bytes of the model with the widths `picked`, an index into each ladder."""
        ms = self.least_ms + sum(cost[i] for cost, i in zip(self.ms, picked, strict=True))
        return float(ms), float(self.least_bytes + sum(cost[i] for cost, i in zip(self.nbytes, picked, strict=True)))

    def mixed(self, budget: CostBudget, weight: float) -> list[Array]:
        """One cost [widths] for each site that stands for time and size: 1 in total is all that the budget leaves.

        (1 - weight) * ms / (budget.ms - least_ms) + weight * nbytes / (budget.nbytes - least_bytes), where a budget
        without a bound adds nothing. weight: in [0, 1]; 0 is time alone, 1 bytes alone.
        """
        free_ms = np.inf if budget.ms is None else max(budget.ms - self.least_ms, 1e-9)
        free_bytes = np.inf if budget.nbytes is None else max(budget.nbytes - self.least_bytes, 1e-9)
        parts = zip(self.ms, self.nbytes, strict=True)
        return [(1 - weight) * ms / free_ms + weight * nbytes / free_bytes for ms, nbytes in parts]


def width_choices(options: MeasuredOptions) -> Iterator[WidthChoices]:
    """The widths to choose from, for each combination of alternatives that can go together."""
    costs = options.costs
    count = 1 + max((layer for one in options.sensitivities for layer in one.site.layers), default=0)
    ladders = [ladder(one.site.units, GRID[one.site.kind]) for one in options.sensitivities]
    every = [
        (one, steps, one.squared(steps), np.array(steps, float) - steps[0])
        for one, steps in zip(options.sensitivities, ladders, strict=True)
    ]
    kinds = options.layers, options.embeddings, options.tokens, options.precisions, options.streams
    for combination in itertools.starmap(Combination, itertools.product(*kinds)):
        if not combination.go_together(count):
            continue
        left = [row for row in every if not {*row[0].site.layers} <= {*combination.layers.gone}]
        saved = combination.savings([one.site for one, *_ in left], costs)
        ms = [one.ms * row[3] for one, row in zip(saved, left, strict=True)]
        nbytes = [one.nbytes * row[3] for one, row in zip(saved, left, strict=True)]
        yield WidthChoices(
            combination,
            [one for one, *_ in left],
            [steps for _, steps, *_ in left],
            [squares for _, _, squares, _ in left],
            ms,
            nbytes,
            float(costs.full_ms - combination.saved_ms() - sum(cost[-1] for cost in ms)),
            float(costs.full_bytes - combination.saved_bytes() - sum(cost[-1] for cost in nbytes)),
        )
