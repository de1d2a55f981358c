"""Every verdict, and the error that it becomes."""

import pytest

from onnxslim_bert.errors import AccuracyGateError, DataError, LatencyGateError, SizeGateError
from onnxslim_bert.proof.gates import Verdict, at_least, at_most, enforce, parse_size
from onnxslim_bert.proof.intervals import Interval


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [
        (Interval(0.2, -0.3, 0.7), "met"),
        (Interval(1.0, 0.9, 1.0), "met"),
        (Interval(0.2, -0.9, 1.3), "inconclusive"),
        (Interval(1.1, 0.4, 1.8), "missed"),
        (Interval(2.0, 1.5, 2.5), "missed"),
    ],
)
def test_a_drop_of_at_most_one_point(interval, outcome):
    """Met needs the whole interval, missed only the value."""
    assert at_most("max-drop", interval, 1.0, " points").outcome == outcome


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [
        (Interval(2.0, 1.6, 2.4), "met"),
        (Interval(2.0, 1.4, 2.6), "inconclusive"),
        (Interval(1.4, 1.3, 1.6), "missed"),
    ],
)
def test_a_speedup_of_at_least_one_and_a_half(interval, outcome):
    """The bad end is the low one."""
    assert at_least("min-speedup", interval, 1.5, "x").outcome == outcome


def test_an_inconclusive_verdict_says_what_was_found_and_wanted():
    """The value, its interval, the budget, and why."""
    verdict = at_most("max-drop", Interval(0.2, -0.9, 1.3), 1.0, " points")
    assert verdict.note == "0.2 points (-0.9 to 1.3), wanted at most 1 points: the data cannot carry this budget"


def test_inconclusive_fails_under_strict_only():
    """Met never fails, missed always."""
    verdicts = [Verdict("max-drop", outcome, "") for outcome in ("met", "inconclusive", "missed")]
    assert [verdict.fails(strict=False) for verdict in verdicts] == [False, False, True]
    assert [verdict.fails(strict=True) for verdict in verdicts] == [False, True, True]


MET, DROP = Verdict("finite", "met", "fine"), Verdict("max-drop", "missed", "3 points")
AGREE, SLOW = Verdict("min-agreement", "missed", "90 %"), Verdict("min-speedup", "missed", "1.1x")
LARGE, UNSURE = Verdict("max-size", "missed", "30 MB"), Verdict("max-drop", "inconclusive", "0.5 points")


@pytest.mark.parametrize(
    ("verdicts", "strict", "error", "exit_code"),
    [
        ([MET, DROP], False, AccuracyGateError, 3),
        ([AGREE], False, AccuracyGateError, 3),
        ([SLOW, MET], False, LatencyGateError, 4),
        ([LARGE], False, SizeGateError, 6),
        ([LARGE, SLOW, AGREE], False, AccuracyGateError, 3),
        ([LARGE, SLOW], False, LatencyGateError, 4),
        ([LARGE, UNSURE], True, AccuracyGateError, 3),
        ([LARGE, UNSURE], False, SizeGateError, 6),
    ],
)
def test_the_first_missed_gate_decides_the_exit_code(verdicts, strict, error, exit_code):
    """Accuracy, then latency, then size, whatever the order of the verdicts."""
    with pytest.raises(error) as caught:
        enforce(verdicts, strict)
    assert caught.value.exit_code == exit_code


def test_every_missed_gate_is_named_on_one_line():
    """The first one first."""
    with pytest.raises(AccuracyGateError, match=r"^max-drop missed: 3 points; max-size missed: 30 MB$"):
        enforce([LARGE, MET, DROP])


def test_nothing_is_raised_when_all_is_met():
    """Nor for an inconclusive verdict without strict."""
    enforce([MET])
    enforce([MET, UNSURE])


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("24MB", 24_000_000),
        ("24 mb", 24_000_000),
        ("1.5KiB", 1536),
        ("2GiB", 2**31),
        ("700", 700),
        ("700B", 700),
        ("3M", 3_000_000),
    ],
)
def test_sizes_are_read_in_decimal_and_binary_units(text, nbytes):
    """MB is 10**6, MiB 2**20."""
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "MB", "-3MB", "24 bananas", "5iB", "1e3"])
def test_what_is_no_size_is_refused(text):
    """With an example of one that is."""
    with pytest.raises(DataError, match="write it like 24MB"):
        parse_size(text)
