"""Which steps of a search can be taken together."""

import pytest

from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.combination import Combination
from onnxslim_bert.job.search.costs import Costs, Saving, site_key
from onnxslim_bert.rewriting.pruning.sites import Site

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


def test_beside_a_narrower_stream_all_else_saves_a_share():
    """What leaves out half of the channels saves 3 ms of 10; a layer of 2 ms is one of 1 ms then, and so is a head."""
    half = Alternative("prune-hidden{width=64}", ms=3.0, nbytes=4000.0, stream=0.5)
    layer = Alternative("drop", ms=2.0, nbytes=1000.0, gone=(1,))
    together = Combination(layer, NONE, NONE, NONE, half)
    assert (together.saved_ms(), together.saved_bytes()) == (4.0, 4500.0)
    site = Site("heads", (0,), 4, 8)
    costs = Costs(40.0, 10.0, 10_000, {site_key(site): Saving(0.5, 60.0)})
    assert together.savings([site], costs) == [Saving(0.25, 30.0)]
