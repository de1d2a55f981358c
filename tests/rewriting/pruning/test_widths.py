"""How many units each site keeps: the numbers to choose from, and the choice."""

import numpy as np
import pytest

from onnxslim_bert.errors import PassError
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity
from onnxslim_bert.rewriting.pruning.sites import Site
from onnxslim_bert.rewriting.pruning.widths import choose_widths, ladder, measured_widths


@pytest.mark.parametrize(
    ("units", "grid", "least", "expected"),
    [
        (5, 1, 0, [1, 2, 3, 4, 5]),
        (100, 32, 0, [32, 64, 96, 100]),
        (63, 32, 0, list(range(1, 64))),  # narrower than two steps of the grid
        (12, 1, 6, [6, 7, 8, 9, 10, 11, 12]),
        (7, 1, 3.5, [3, 4, 5, 6, 7]),
        (10, 1, 10 * 0.7, [7, 8, 9, 10]),
        (100, 29, 100 * 0.29, [29, 58, 87, 100]),  # 0.29 * 100 falls short of 29 in floating point
        (128, 32, 20, [32, 64, 96, 128]),
        (4, 1, 4, [4]),
    ],
)
def test_the_numbers_to_choose_from(units, grid, least, expected):
    assert ladder(units, grid, least) == expected


def test_widths_are_measured_evenly_and_at_the_ends():
    assert measured_widths(range(1, 13), 4) == [1, 5, 8, 12]
    assert measured_widths([3, 9]) == [3, 9]
    assert measured_widths([7]) == [7]


def test_units_go_where_they_do_least_damage():
    """Site 1 is worth little: it is narrowed as far as it can be before site 0 loses more than it must."""
    worth = [{1: 0.9, 2: 0.5, 3: 0.0}, {1: 0.1, 2: 0.05, 3: 0.0}]
    found = [Sensitivity(Site("heads", (i,), 3, 4), np.arange(3), damage) for i, damage in enumerate(worth)]
    assert choose_widths(found, [[1, 2, 3]] * 2, 4) == [3, 1]
    assert choose_widths(found, [[1, 2, 3]] * 2, 3) == [2, 1]
    assert choose_widths(found, [[1, 2, 3], [2, 3]], 4) == [2, 2]


def test_of_equal_widths_the_larger_stays():
    """Noise can make a narrower site look better; it is never taken for that."""
    found = [Sensitivity(Site("heads", (0,), 3, 4), np.arange(3), {1: 0.1, 2: 0.2, 3: 0.0})]
    assert choose_widths(found, [[1, 2, 3]], 2) == [2]


@pytest.mark.parametrize("kind", ["heads", "neurons"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_damages_that_are_no_numbers_choose_nothing(kind, value):
    """The answers of a model may be finite, and those of it without some units not."""
    found = [Sensitivity(Site(kind, (0,), 3, 4), np.arange(3), {1: value, 2: value, 3: 0.0})]
    with pytest.raises(PassError, match=f"not finite with fewer {kind}"):
        choose_widths(found, [[1, 2, 3]], 2)
