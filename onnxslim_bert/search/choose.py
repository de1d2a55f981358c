"""Which plan reaches a budget at the least predicted damage; numbers in, a plan out."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.pruning.allocate import allocate
from onnxslim_bert.pruning.sensitivity import Sensitivity
from onnxslim_bert.pruning.sites import Site
from onnxslim_bert.pruning.widths import ladder
from onnxslim_bert.search.costs import Costs
from onnxslim_bert.search.plan import Plan

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of bytes against milliseconds, where both are bounded
TIGHTER = (1.0, 0.97, 0.94, 0.9, 0.85, 0.8)  # budgets tried until both bounds hold
GRID = {"heads": 1, "neurons": 32}


@dataclass(frozen=True)
class Alternative:
    """A step that may be taken besides narrowing; an empty one changes nothing.

    damage: of the step alone. ms, nbytes: what it saves. gone: layers that it removes. keep: the share of the tokens
    that goes on from layer `after`, if any are dropped.
    """

    step: str = ""
    damage: float = 0.0
    ms: float = 0.0
    nbytes: float = 0.0
    gone: tuple[int, ...] = ()
    after: int | None = None
    keep: float = 1.0

    def scale(self, site: Site) -> float:
        """The share of the tokens that reach `site`: drops come between a layer's attention and its feed-forward."""
        first = site.layers[0] + (site.kind == "neurons")
        return self.keep if self.after is not None and first > self.after else 1.0


@dataclass(frozen=True)
class Options:
    """Everything that was measured. Each list of alternatives begins with the empty one."""

    sensitivities: Sequence[Sensitivity]
    costs: Costs
    layers: Sequence[Alternative] = (Alternative(),)
    embeddings: Sequence[Alternative] = (Alternative(),)
    tokens: Sequence[Alternative] = (Alternative(),)
    method: str = "minmax"


@dataclass(frozen=True)
class Budget:
    """At most `ms` milliseconds and `nbytes` bytes; None is no bound."""

    ms: float | None = None
    nbytes: float | None = None

    def holds(self, ms: float, nbytes: float) -> bool:
        """Whether this much time and space is within it."""
        return (self.ms is None or ms <= self.ms) and (self.nbytes is None or nbytes <= self.nbytes)


@dataclass(frozen=True)
class Prediction:
    """A plan and what the tables say of it."""

    plan: Plan
    damage: float
    ms: float
    nbytes: float


def choose(options: Options, budget: Budget) -> Prediction | None:
    """The plan within `budget` with the least predicted damage, squares of damages adding up; None when none fits."""
    predictions = [
        prediction
        for layers, embedding, tokens in itertools.product(options.layers, options.embeddings, options.tokens)
        for prediction in _fitting(options, budget, layers, embedding, tokens)
    ]
    return min(predictions, key=lambda one: one.damage, default=None)


def _fitting(
    options: Options, budget: Budget, layers: Alternative, embedding: Alternative, tokens: Alternative
) -> Iterator[Prediction]:
    """Plans with these alternatives that hold the budget."""
    found = [one for one in options.sensitivities if not {*one.site.layers} <= {*layers.gone}]
    ladders = [ladder(one.site.units, GRID[one.site.kind]) for one in found]
    squares = [one.squared(steps) for one, steps in zip(found, ladders, strict=True)]
    taken = (layers, embedding, tokens)
    table = _Table.of(options.costs, found, ladders, taken)
    both = budget.ms is not None and budget.nbytes is not None
    for weight in WEIGHTS if both else (0.0 if budget.nbytes is None else 1.0,):
        costs = table.mixed(budget, weight)
        for tight in TIGHTER:
            picked = allocate(costs, squares, tight)
            if picked is not None and budget.holds(*(spent := table.spent(picked))):
                square = sum(values[i] for values, i in zip(squares, picked, strict=True))
                square += sum(one.damage**2 for one in taken)
                counts = [steps[i] for steps, i in zip(ladders, picked, strict=True)]
                yield Prediction(_plan(found, counts, taken, options.method), float(np.sqrt(square)), *spent)
                break


@dataclass(frozen=True)
class _Table:
    """What everything costs with some alternatives taken: at the narrowest, and each width beyond that."""

    least_ms: float
    least_bytes: float
    ms: list[Array]
    nbytes: list[Array]

    @classmethod
    def of(
        cls,
        costs: Costs,
        found: Sequence[Sensitivity],
        ladders: Sequence[Sequence[int]],
        taken: Sequence[Alternative],
    ) -> "_Table":
        scales = [float(np.prod([one.scale(each.site) for one in taken])) for each in found]
        beyond = [np.array(steps, float) - steps[0] for steps in ladders]
        ms = [costs.of(each.site).ms * units * s for each, units, s in zip(found, beyond, scales, strict=True)]
        nbytes = [costs.of(each.site).nbytes * units for each, units in zip(found, beyond, strict=True)]
        least_ms = costs.full_ms - sum(one.ms for one in taken) - sum(cost[-1] for cost in ms)
        least_bytes = costs.full_bytes - sum(one.nbytes for one in taken) - sum(cost[-1] for cost in nbytes)
        return cls(least_ms, least_bytes, ms, nbytes)

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


def _plan(found: Sequence[Sensitivity], counts: Sequence[int], taken: Sequence[Alternative], method: str) -> Plan:
    heads, neurons = (
        tuple(count for one, count in zip(found, counts, strict=True) if one.site.kind == kind)
        for kind in ("heads", "neurons")
    )
    layers, embedding, tokens = (one.step for one in taken)
    return Plan(heads, neurons, layers, embedding, tokens, method)
