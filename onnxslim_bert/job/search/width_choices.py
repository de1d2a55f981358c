"""The widths and bits that can still be chosen once one alternative of each kind is taken."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.job.search.alternatives import MeasuredOptions
from onnxslim_bert.job.search.combination import Combination
from onnxslim_bert.job.search.costs import Saving, site_key
from onnxslim_bert.job.search.matrix_bits import MatrixBits, Packing, packings
from onnxslim_bert.rewriting.pruning.sites import Site
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
class SiteChoice:
    """What becomes of one site: how many `units` stay, and the bits of its matrices in the file.

    site: None for matrices of no site, as those of a pooler, which have no units. matrices: the numbers of those that
    are int8 matrices.
    """

    site: Site | None
    units: int
    packing: Packing
    matrices: tuple[int, ...]


@dataclass(frozen=True)
class WidthChoices:
    """The widths and bits to choose from with one combination of alternatives: what each does and costs.

    ladders: for every site that is not in a dropped layer, and for matrices of none, what it may become; the first is
    the narrowest one in the fewest bits, the last the whole one in int8. squares: the squared damage of each [choices].
    ms, nbytes: what each costs more than the first [choices]. least_ms, least_bytes: the cost of the whole model with
    the first of every ladder.

    Example: a ladder of 1, 2 and 4 units of 1 ms: ms [0, 1, 3]. What is `picked` is an index into each ladder.
    """

    combination: Combination
    ladders: list[list[SiteChoice]]
    squares: list[Array]
    ms: list[Array]
    nbytes: list[Array]
    least_ms: float
    least_bytes: float

    @property
    def damage(self) -> float:
        """The damage of the alternatives alone: the root of the sum of their squared damages."""
        return float(np.sqrt(sum(one.damage**2 for one in self.combination.every)))

    @property
    def narrowest(self) -> list[int]:
        """The first of every ladder."""
        return [0] * len(self.ladders)

    def square(self, picked: Sequence[int]) -> float:
        """The squared damage of the widths `picked`, an index into each ladder."""
        return float(sum(values[i] for values, i in zip(self.squares, picked, strict=True)))

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
    """The widths and bits to choose from, for each combination of alternatives that can go together."""
    costs, places = options.costs, _places(options)
    count = 1 + max((layer for one in options.sensitivities for layer in one.site.layers), default=0)
    kinds = options.layers, options.embeddings, options.tokens, options.precisions, options.streams
    for combination in itertools.starmap(Combination, itertools.product(*kinds)):
        if not combination.go_together(count):
            continue
        left = [place for place in places if not place.layers or not {*place.layers} <= {*combination.layers.gone}]
        saved = iter(combination.savings([place.site for place in left if place.site is not None], costs))
        found: list[_Ladder] = []
        for place in left:
            is_int8 = not place.layers or not {*place.layers} <= {*combination.precision.floats}
            unit = next(saved) if place.site is not None else Saving(0.0, 0.0)
            found.append(place.choices(unit, combination.stream.stream, is_int8=is_int8))
        yield WidthChoices(
            combination,
            [one.choices for one in found],
            [one.squares for one in found],
            [one.ms for one in found],
            [one.nbytes for one in found],
            float(costs.full_ms - combination.saved_ms() - sum(one.ms[-1] for one in found)),
            float(costs.full_bytes - combination.saved_bytes() - sum(one.nbytes[-1] for one in found)),
        )


@dataclass(frozen=True)
class _Ladder:
    """The row of one site in each of the lists of `WidthChoices`."""

    choices: list[SiteChoice]
    squares: Array
    ms: Array
    nbytes: Array


@dataclass(frozen=True)
class _Place:
    """A site, or matrices of none: its layers, its widths with their squared damage, its matrices by number."""

    site: Site | None
    layers: tuple[int, ...]
    widths: Array
    squares: Array
    matrices: dict[int, MatrixBits]

    def choices(self, unit: Saving, stream: float, *, is_int8: bool) -> _Ladder:
        """Every width with all bits to choose from.

        unit: what one unit saves. stream: the share of the stream's channels that stay. Of fewer units and channels,
        matrices in fewer bits save the share that is left.
        """
        forms = packings(self.matrices if is_int8 else {})
        numbers = tuple(self.matrices) if is_int8 else ()
        every = [SiteChoice(self.site, int(width), form, numbers) for width in self.widths for form in forms]
        squares = np.add.outer(self.squares, [form.square for form in forms]).ravel()
        taken = np.subtract.outer(np.zeros(len(self.widths)), [form.nbytes for form in forms])
        left = stream * self.widths / self.widths[-1]
        taken = (taken * left[:, None] + (unit.nbytes * self.widths)[:, None]).ravel()
        ms = np.repeat(unit.ms * (self.widths - self.widths[0]), len(forms))
        return _Ladder(every, squares, ms, taken - taken[0])


def _places(options: MeasuredOptions) -> list[_Place]:
    groups: dict[tuple[str, tuple[int, ...]], dict[int, MatrixBits]] = {}
    for number, matrix in enumerate(options.matrices):
        groups.setdefault((matrix.site, () if matrix.site else matrix.layers), {})[number] = matrix
    found: list[_Place] = []
    for one in options.sensitivities:
        steps = ladder(one.site.units, GRID[one.site.kind])
        own = groups.pop((site_key(one.site), ()), {})
        found.append(_Place(one.site, one.site.layers, np.array(steps, float), one.squared(steps), own))
    return found + [_Place(None, layers, np.ones(1), np.zeros(1), own) for (_, layers), own in groups.items()]
