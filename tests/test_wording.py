"""Numbers read as people write them."""

import pytest

from onnxslim_bert.wording import aligned, counted, plural, si


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "B", "0 B"),
        (999, "", "999"),
        (1000, "", "1.00 k"),
        (3549, "B", "3.55 kB"),
        (22_714_000, "", "22.7 M"),
        (437_677_576, "B", "437.7 MB"),
        (999_960, "B", "1.00 MB"),
        (2.2e13, "", "22.0 T"),
    ],
)
def test_numbers_have_a_prefix(value, unit, text):
    assert si(value, unit) == text


def test_one_is_singular():
    assert (plural(1, "node"), plural(2, "node"), plural(0, "node")) == ("1 node", "2 nodes", "0 nodes")
    assert plural(2, "matrix", "matrices") == "2 matrices"
    assert counted({"norm": 0, "attention": 1, "sum": 2}) == "1 attention, 2 sums"
    assert counted({"norm": 0}) == "nothing"


def test_columns_stand_one_below_the_other():
    assert [*aligned([("", "speed"), ("first", "2x"), ("b", "")])] == ["       speed", "first  2x", "b"]
