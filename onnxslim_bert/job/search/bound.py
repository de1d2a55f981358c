"""A lower bound on the damage of a combination, so that few of many must be solved."""

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.job.search.width_choices import CostBudget, WidthChoices

STEPS = 16  # of the bisection of the price of a budget
PRICES = (1e-8, 1e6)  # least and greatest price tried, in squared damage for the whole budget


def least_damage(table: WidthChoices, budget: CostBudget) -> float:
    """A lower bound: no widths of `table` within `budget` do less damage; infinite when even the narrowest do not fit.

    The dual of a knapsack (Everett 1963, https://doi.org/10.1287/opre.11.3.399). Let the budget cost 1 and have a
    price: the least sum of squared damage and price * cost over all widths, minus the price, is below the squared
    damage of any widths that cost at most 1. The bound is the greatest such value over prices; with a bound of time and
    one of bytes, also over three mixed costs: time alone, bytes alone, and half of each.
    """
    if not budget.holds(*table.spent(table.narrowest)):
        return np.inf
    weights = {budget.ms is None, budget.nbytes is not None}
    squares = _padded(table.squares, np.inf)
    every = {*map(float, weights), sum(weights) / len(weights)}
    best = max(_dual(squares, _padded(table.mixed(budget, weight), 0.0)) for weight in every)
    return float(np.sqrt(best + table.damage**2))


def _dual(squares: Array, costs: Array) -> float:
    """The greatest lower bound on the sum of squared damages, over prices; squares, costs: [sites, widths]."""
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
