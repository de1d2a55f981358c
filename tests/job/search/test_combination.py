"""Which steps of a search can be taken together."""

import pytest

from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.combination import Combination

NONE = Alternative()


@pytest.mark.parametrize(
    ("gone", "floats", "count", "together"),
    [
        ((), (0, 1), 3, True),
        ((2,), (0,), 3, True),
        ((2,), (0, 1), 3, False),  # nothing would be left to quantize
        ((0,), (0,), 3, False),
        ((), (0, 1), 2, False),
        ((1, 2), (), 3, True),
    ],
)
def test_a_layer_is_dropped_or_float_and_one_is_int8(gone, floats, count, together):
    combination = Combination(Alternative(gone=gone), NONE, NONE, Alternative(floats=floats))
    assert combination.go_together(count) is together
