"""Which models are shown, which one is taken, and what is said when none will do."""

from pathlib import Path

import pytest

from onnxslim_bert.errors import AccuracyGateError, LatencyGateError, SizeGateError
from onnxslim_bert.job.search.frontier import MeasuredPoint, frontier, pick
from onnxslim_bert.job.search.targets import Targets


def point(speedup: float, nbytes: float, damage: float, drop: float) -> MeasuredPoint:
    """A model with these measurements."""
    return MeasuredPoint(f"{speedup}x", Path("file"), int(nbytes), 1 / speedup, speedup, damage, damage, drop)


PLAIN, MIDDLE, DEEP = point(3, 23e6, 0.01, 0.0), point(5, 16e6, 0.1, 0.4), point(8, 10e6, 0.3, 2.0)
POINTS = [PLAIN, DEEP, MIDDLE]


def test_the_frontier_is_what_no_other_beats():
    """Slowest first; equal points are both kept, and so is the first one of all."""
    beaten = point(4.9, 17e6, 0.11, 0.5)
    assert frontier([*POINTS, beaten]) == [PLAIN, MIDDLE, DEEP]
    nearer = point(4.9, 17e6, 0.09, 0.5)
    assert frontier([*POINTS, nearer]) == [PLAIN, nearer, MIDDLE, DEEP]
    assert frontier([PLAIN, PLAIN]) == [PLAIN, PLAIN]
    assert frontier([beaten, *POINTS]) == [PLAIN, beaten, MIDDLE, DEEP]


@pytest.mark.parametrize(
    ("targets", "taken"),
    [
        (Targets(speedup=4), MIDDLE),
        (Targets(speedup=2), PLAIN),
        (Targets(nbytes=12e6), DEEP),
        (Targets(speedup=4, nbytes=20e6, drop=1.0), MIDDLE),
        (Targets(drop=1.0), MIDDLE),
        (Targets(drop=3.0), DEEP),
    ],
    ids=str,
)
def test_the_least_damage_that_meets_every_target_is_taken(targets, taken):
    """Or the fastest, when nothing but a drop is given."""
    assert pick(POINTS, targets) is taken


@pytest.mark.parametrize(
    ("targets", "error", "code", "message"),
    [
        (
            Targets(speedup=9),
            LatencyGateError,
            4,
            "--target-speedup 9 was not reached: the fastest is 8.00x at 10 MB and a drop of 2.00 points",
        ),
        (
            Targets(nbytes=9e6),
            SizeGateError,
            6,
            "--target-size 9MB was not reached: the smallest is 8.00x at 10 MB and a drop of 2.00 points",
        ),
        (
            Targets(speedup=6, drop=1),
            AccuracyGateError,
            3,
            "--max-drop 1 does not hold at the targets: "
            "the fastest within it is 5.00x at 16 MB and a drop of 0.40 points",
        ),
        (
            Targets(drop=0),
            AccuracyGateError,
            3,
            "--max-drop 0 does not hold: the nearest is 5.00x at 16 MB and a drop of 0.40 points",
        ),
    ],
    ids=str,
)
def test_a_missed_target_says_how_far_it_came(targets, error, code, message):
    """With the exit code of its gate."""
    points = [MIDDLE, DEEP] if targets.drop == 0 else POINTS
    with pytest.raises(error) as caught:
        pick(points, targets)
    assert str(caught.value) == message
    assert caught.value.exit_code == code


def test_two_targets_that_are_reached_apart_only():
    """The fastest is not small, the smallest is not fast."""
    points = [point(9, 23e6, 0.1, 0.0), point(3, 9e6, 0.1, 0.0)]
    with pytest.raises(LatencyGateError) as caught:
        pick(points, Targets(speedup=8, nbytes=10e6))
    assert str(caught.value) == (
        "--target-speedup 8 was not reached at --target-size 10MB: "
        "the fastest that small is 3.00x at 9 MB and a drop of 0.00 points"
    )
