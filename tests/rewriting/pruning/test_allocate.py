"""A budget is spent where it does the least damage: held to trying every combination."""

from itertools import product

import numpy as np
import pytest

from onnxslim_bert.rewriting.pruning.allocate import allocate


def best(costs, damages, budget):
    """The least damage that fits, by enumeration."""
    combinations = product(*(range(len(cost)) for cost in costs))
    fitting = [c for c in combinations if sum(x[i] for x, i in zip(costs, c, strict=True)) <= budget + 1e-9]
    return min(sum(x[i] for x, i in zip(damages, c, strict=True)) for c in fitting)


def spent(values, picked):
    return sum(options[i] for options, i in zip(values, picked, strict=True))


@pytest.mark.parametrize("budget", [3, 5, 7, 11, 30])
@pytest.mark.parametrize("seed", range(5))
def test_whole_costs_are_spent_best(seed, budget):
    """Whatever the order of the options, and where more costs more damage too."""
    rng = np.random.default_rng(seed)
    costs = [rng.integers(1, 9, 4) for _ in range(3)]
    costs[0][2] = costs[1][0] = costs[2][3] = 1
    damages = [rng.random(4) for _ in range(3)]
    picked = allocate(costs, damages, budget)
    assert spent(costs, picked) <= budget
    assert spent(damages, picked) == pytest.approx(best(costs, damages, budget))


@pytest.mark.parametrize("seed", range(5))
def test_other_costs_stay_within_the_budget(seed):
    """Milliseconds, say: rounded up, so the best that fits a hair less is reached."""
    rng = np.random.default_rng(seed)
    costs, damages = [rng.random(5) for _ in range(3)], [rng.random(5) for _ in range(3)]
    picked = allocate(costs, damages, 1.4)
    assert spent(costs, picked) <= 1.4
    assert best(costs, damages, 1.4) <= spent(damages, picked) <= best(costs, damages, 1.4 * (1 - 3 / 4096))


def test_costs_beyond_the_bins_still_fit():
    """Thousands of neurons in all."""
    costs = [np.array([1000, 3000]), np.array([2000, 4000])]
    assert allocate(costs, [np.array([1.0, 0.2]), np.array([0.9, 0.3])], 5000) == [1, 0]


def test_what_cannot_be_paid_is_none():
    assert allocate([np.array([3, 4]), np.array([2])], [np.zeros(2), np.zeros(1)], 4) is None
    assert allocate([np.array([2.5])], [np.zeros(1)], 2.4) is None
