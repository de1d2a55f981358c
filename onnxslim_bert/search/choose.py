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

BISECTIONS = 7  # of the weight of one bound against the other, and then of the budget
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

    def share(self, layer: int) -> float:
        """The share of the tokens that enter `layer`."""
        return self.keep if self.after is not None and layer > self.after else 1.0


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
    """The plan within `budget` with the least predicted damage, squares of damages adding up; None when none fits.

    Nothing is removed when everything fits.
    """
    costs = options.costs
    if budget.holds(costs.full_ms, costs.full_bytes):
        sites = [one.site for one in options.sensitivities]
        whole = _plan(sites, [site.units for site in sites], (Alternative(),) * 3, options.method)
        return Prediction(whole, 0.0, costs.full_ms, costs.full_bytes)
    best: Prediction | None = None
    for table in sorted(_tables(options), key=lambda table: table.damage):
        if best is not None and table.damage >= best.damage:
            break  # and so are all that follow
        if (found := _narrowed(table, budget, options.method)) and (best is None or found.damage < best.damage):
            best = found
    return best


def reachable(options: Options, budget: Budget) -> bool:
    """Whether any plan is within `budget`."""
    return any(budget.holds(*table.spent([0] * len(table.found))) for table in _tables(options))


@dataclass(frozen=True)
class _Table:
    """What is left to choose with some alternatives taken.

    found: the sites that are left, and `ladders` what each may keep. squares: the damage of that, squared. ms, nbytes:
    what it costs beyond the narrowest, and `least_*` what the whole model costs at its narrowest.
    """

    taken: tuple[Alternative, ...]
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
        return float(np.sqrt(sum(one.damage**2 for one in self.taken)))

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


def _tables(options: Options) -> Iterator[_Table]:
    """One for each combination of alternatives."""
    costs = options.costs
    count = 1 + max((layer for one in options.sensitivities for layer in one.site.layers), default=0)
    every = [(one, ladder(one.site.units, GRID[one.site.kind])) for one in options.sensitivities]
    for layers, embedding, tokens in itertools.product(options.layers, options.embeddings, options.tokens):
        if not _go_together(layers, tokens, count):
            continue
        left = [(one, steps) for one, steps in every if not {*one.site.layers} <= {*layers.gone}]
        beyond = [np.array(steps, float) - steps[0] for _, steps in left]
        ms = [
            costs.of(one.site).ms * _share(one.site, layers, tokens) * units
            for (one, _), units in zip(left, beyond, strict=True)
        ]
        nbytes = [costs.of(one.site).nbytes * units for (one, _), units in zip(left, beyond, strict=True)]
        left_there = np.mean([tokens.share(layer) for layer in layers.gone] or [1.0])
        saved_ms = layers.ms * left_there + embedding.ms + tokens.ms
        yield _Table(
            (layers, embedding, tokens),
            [one for one, _ in left],
            [steps for _, steps in left],
            [one.squared(steps) for one, steps in left],
            ms,
            nbytes,
            float(costs.full_ms - saved_ms - sum(cost[-1] for cost in ms)),
            float(costs.full_bytes - layers.nbytes - embedding.nbytes - sum(cost[-1] for cost in nbytes)),
        )


def _go_together(layers: Alternative, tokens: Alternative, count: int) -> bool:
    """Whether both can be had: a drop of tokens counts its layers from the front and needs one behind it."""
    if tokens.after is None or not layers.gone:
        return True
    return min(layers.gone) > tokens.after and tokens.after < count - len(layers.gone) - 1


def _share(site: Site, layers: Alternative, tokens: Alternative) -> float:
    """Of the time that a unit of `site` takes, what is left when layers are gone and others see fewer tokens.

    Tokens are dropped between a layer's attention and its feed-forward.
    """
    is_later = site.kind == "neurons"
    return float(np.mean([0.0 if i in layers.gone else tokens.share(i + is_later) for i in site.layers]))


def _narrowed(table: _Table, budget: Budget, method: str) -> Prediction | None:
    """The best widths with the alternatives of `table`; None when even the narrowest are beyond the budget."""

    def square(picked: Sequence[int]) -> float:
        return float(sum(values[i] for values, i in zip(table.squares, picked, strict=True)))

    picked = min(_fitting(table, budget), key=square, default=None)
    if picked is None:
        return None
    counts = [steps[i] for steps, i in zip(table.ladders, picked, strict=True)]
    plan = _plan([one.site for one in table.found], counts, table.taken, method)
    return Prediction(plan, float(np.sqrt(square(picked) + table.damage**2)), *table.spent(picked))


def _fitting(table: _Table, budget: Budget) -> Iterator[list[int]]:
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
        none, whole = 0.0, 1.0
        for _ in range(BISECTIONS):
            tight = (none + whole) / 2
            picked = allocate(table.mixed(budget, end), table.squares, tight) or narrowest
            none, whole = (tight, whole) if budget.holds(*table.spent(picked)) else (none, tight)
            if none == tight:
                yield picked


def _plan(sites: Sequence[Site], counts: Sequence[int], taken: Sequence[Alternative], method: str) -> Plan:
    heads, neurons = (
        tuple(count for site, count in zip(sites, counts, strict=True) if site.kind == kind)
        for kind in ("heads", "neurons")
    )
    layers, embedding, tokens = (one.step for one in taken)
    return Plan(heads, neurons, layers, embedding, tokens, method)
