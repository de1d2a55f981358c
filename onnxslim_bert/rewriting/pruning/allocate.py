"""Spend a budget where it does the least damage."""

from collections.abc import Sequence

import numpy as np

from onnxslim_bert.arrays import Array

BINS = 4096


def allocate(costs: Sequence[Array], damages: Sequence[Array], budget: float) -> list[int] | None:
    """Choose one option for each place: together they cost at most `budget` and do the least damage.

    costs, damages: for each place an array over its options; damages add up. Returns the number of the option for each
    place, or None when even the cheapest cost too much. Example: costs [[3, 2], [3, 2]], damages [[0, 5], [0, 1]] and
    budget 5 give [0, 1].

    A knapsack by dynamic programming over bins of cost (as Frantar and Alistarh 2022, https://arxiv.org/abs/2201.13096,
    use it for layers). The result is the best one when all costs are multiples of a whole number and the budget is at
    most BINS times that; otherwise costs are rounded up to a bin, so that the budget holds in any case.
    """
    step = _common_step(costs)
    size = step if step and budget <= BINS * step else budget / BINS
    limit = int(budget / size + 1e-9)
    best = np.zeros(limit + 1)  # the least damage at a cost of at most this many bins
    choices: list[Array] = []
    for cost, damage in zip(costs, damages, strict=True):
        bins = np.ceil(np.asarray(cost) / size - 1e-9).astype(np.int64)
        totals = np.full((len(bins), limit + 1), np.inf)
        for option, taken in enumerate(bins):
            if taken <= limit:
                totals[option, taken:] = best[: limit + 1 - taken] + damage[option]
        choices.append(totals.argmin(0))
        best = totals.min(0)
    if not np.isfinite(best[limit]):
        return None
    picked: list[int] = []
    left = limit
    for cost, choice in zip(reversed(costs), reversed(choices), strict=True):
        option = int(choice[left])
        picked.append(option)
        left -= int(np.ceil(cost[option] / size - 1e-9))
    return picked[::-1]


def _common_step(costs: Sequence[Array]) -> float:
    """The largest whole number that divides every cost; 0 when one is not whole."""
    every = np.concatenate(list(costs))
    return float(np.gcd.reduce(every.astype(np.int64))) if np.equal(np.mod(every, 1), 0).all() else 0.0
