"""What is left to choose once some alternatives are taken."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.job.search.alternatives import Measurements
from onnxslim_bert.job.search.chosen_steps import ChosenSteps
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity
from onnxslim_bert.rewriting.pruning.widths import ladder

GRID = {"heads": 1, "neurons": 32}


@dataclass(frozen=True)
class Budget:
    """At most `ms` milliseconds and `nbytes` bytes; None is no bound."""

    ms: float | None = None
    nbytes: float | None = None

    def holds(self, ms: float, nbytes: float) -> bool:
        """Whether this much time and space is within it."""
        return (self.ms is None or ms <= self.ms) and (self.nbytes is None or nbytes <= self.nbytes)


@dataclass(frozen=True)
class Combination:
    """Some alternatives and the widths that may go with them.

    found: the sites that are left, and `ladders` what each may keep. squares: the damage of that, squared. ms, nbytes:
    what it costs beyond the narrowest, and `least_*` what the whole model costs at its narrowest.
    """

    taken: ChosenSteps
    found: list[Sensitivity]
    ladders: list[list[int]]
    squares: list[Array]
    ms: list[Array]
    nbytes: list[Array]
    least_ms: float
    least_bytes: float

    @property
    def damage(self) -> float:
        """Of the alternatives alone."""
        return float(np.sqrt(sum(one.damage**2 for one in self.taken.every)))

    def spent(self, picked: Sequence[int]) -> tuple[float, float]:
        """Milliseconds and bytes of the widths `picked`."""
        ms = self.least_ms + sum(cost[i] for cost, i in zip(self.ms, picked, strict=True))
        return float(ms), float(self.least_bytes + sum(cost[i] for cost, i in zip(self.nbytes, picked, strict=True)))

    def mixed(self, budget: Budget, weight: float) -> list[Array]:
        """One cost for both bounds, each as a share of what its budget leaves; `weight` is that of bytes."""
        free_ms = np.inf if budget.ms is None else max(budget.ms - self.least_ms, 1e-9)
        free_bytes = np.inf if budget.nbytes is None else max(budget.nbytes - self.least_bytes, 1e-9)
        parts = zip(self.ms, self.nbytes, strict=True)
        return [(1 - weight) * ms / free_ms + weight * nbytes / free_bytes for ms, nbytes in parts]


def combinations(options: Measurements) -> Iterator[Combination]:
    """One for each choice of alternatives that go together."""
    costs = options.costs
    count = 1 + max((layer for one in options.sensitivities for layer in one.site.layers), default=0)
    ladders = [ladder(one.site.units, GRID[one.site.kind]) for one in options.sensitivities]
    every = [
        (one, steps, one.squared(steps), np.array(steps, float) - steps[0])
        for one, steps in zip(options.sensitivities, ladders, strict=True)
    ]
    kinds = options.layers, options.embeddings, options.tokens, options.precisions
    for taken in itertools.starmap(ChosenSteps, itertools.product(*kinds)):
        if not taken.go_together(count):
            continue
        left = [row for row in every if not {*row[0].site.layers} <= {*taken.layers.gone}]
        saved = taken.savings([one.site for one, *_ in left], costs)
        ms = [one.ms * row[3] for one, row in zip(saved, left, strict=True)]
        nbytes = [one.nbytes * row[3] for one, row in zip(saved, left, strict=True)]
        yield Combination(
            taken,
            [one for one, *_ in left],
            [steps for _, steps, *_ in left],
            [squares for _, _, squares, _ in left],
            ms,
            nbytes,
            float(costs.full_ms - taken.saved_ms() - sum(cost[-1] for cost in ms)),
            float(costs.full_bytes - sum(one.nbytes for one in taken.every) - sum(cost[-1] for cost in nbytes)),
        )
