"""Numbers read as people write them."""

import pytest

from onnxslim_bert.proof.wording import numbered_layers, plural, si


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


@pytest.mark.parametrize(
    ("layers", "text"), [([3], "layer 3"), ([0, 1, 2, 5], "layers 0 to 2, 5"), ([1, 3], "layers 1, 3")]
)
def test_layers_are_numbered_in_runs(layers, text):
    assert numbered_layers(layers) == text


def test_one_is_singular():
    assert (plural(1, "node"), plural(2, "node"), plural(0, "node")) == ("1 node", "2 nodes", "0 nodes")
