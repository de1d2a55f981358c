"""What can be asked for, and what reaches it."""

import pytest

from onnxslim_bert.errors import PassError
from onnxslim_bert.job.search.targets import Targets


@pytest.mark.parametrize(
    ("targets", "met"),
    [
        (Targets(speedup=4), True),
        (Targets(speedup=4.1), False),
        (Targets(nbytes=1000), True),
        (Targets(nbytes=999), False),
        (Targets(drop=0.5), True),
        (Targets(drop=0.4), False),
        (Targets(4, 1000, 0.5), True),
        (Targets(4, 999, 0.5), False),
        (Targets(drop=0), False),
    ],
    ids=str,
)
def test_every_target_must_be_met(targets, met):
    """At 4x, 1,000 bytes and half a point lost."""
    assert targets.met_by(4.0, 1000.0, 0.5) is met


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "a search needs a target: --target-speedup, --target-size, --max-download or --max-drop"),
        ({"speedup": 1.0}, "--target-speedup 1 is no speed-up; give more than 1"),
        ({"nbytes": 0.0}, "--target-size 0 bytes is no size; give for instance 10MB"),
        ({"nbytes": 0.0, "packed": True}, "--max-download 0 bytes is no size; give for instance 10MB"),
        ({"drop": -0.5}, "--max-drop -0.5 is negative; give the points that may be lost, 1.0 for instance"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_refused(asked, message):
    with pytest.raises(PassError) as caught:
        Targets(**asked)
    assert str(caught.value) == message
