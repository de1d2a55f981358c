"""What damage a combination cannot be below, so that few of many are looked into."""

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.job.search.width_choices import CostBudget, WidthChoices

STEPS = 16  # of the bisection of the price of a budget
PRICES = (1e-8, 1e6)  # squared damage for all that a budget leaves


def least_damage(table: WidthChoices, budget: CostBudget) -> float:
    """A damage that no widths of `table` within `budget` are below; infinite when even the narrowest are beyond it.

    The dual of a knapsack: at any price of the budget, the least of squared damage and cost together, less the price of
    the whole budget (Everett 1963, https://doi.org/10.1287/opre.11.3.399). Of two bounds, each and their mean.
    """
    if not budget.holds(*table.spent([0] * len(table.found))):
        return np.inf
    weights = {budget.ms is None, budget.nbytes is not None}
    squares = _padded(table.squares, np.inf)
    every = {*map(float, weights), sum(weights) / len(weights)}
    best = max(_dual(squares, _padded(table.mixed(budget, weight), 0.0)) for weight in every)
    return float(np.sqrt(best + table.damage**2))


def _dual(squares: Array, costs: Array) -> float:
    """The greatest bound over prices; squares, costs: [sites, widths]."""
    sites = np.arange(len(squares))
    low, high = np.log(PRICES)
    best = 0.0
    for _ in range(STEPS):
        price = np.exp((low + high) / 2)
        totals = squares + price * costs
        picked = totals.argmin(1)
        best = max(best, float(totals[sites, picked].sum() - price))
        if costs[sites, picked].sum() > 1:
            low = np.log(price)
        else:
            high = np.log(price)
    return best


def _padded(rows: list[Array], filling: float) -> Array:
    table = np.full((len(rows), max(map(len, rows), default=1)), filling)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table
