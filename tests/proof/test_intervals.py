"""Confidence intervals and McNemar's test against textbook values."""

import numpy as np
import pytest

from onnxslim_bert.proof import intervals
from onnxslim_bert.proof.intervals import (
    Interval,
    mcnemar,
    paired_bootstrap,
    paired_ratio,
    resample,
    wilson,
    with_unseen,
)
from onnxslim_bert.proof.metrics import accuracy


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(hits, rows, low, high):
    """Newcombe 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I."""
    interval = wilson(hits, rows)
    assert interval.value == pytest.approx(100 * hits / rows)
    assert (interval.low, interval.high) == pytest.approx((100 * low, 100 * high), abs=0.005)


def test_mcnemar_is_the_exact_binomial():
    """1 against 9: 2 (1 + 10) / 2**10."""
    base = np.array([True] * 1 + [False] * 9 + [True] * 5)
    candidate = np.array([False] * 1 + [True] * 9 + [True] * 5)
    test = mcnemar(base, candidate)
    assert (test.only_base, test.only_candidate) == (1, 9)
    assert test.p == pytest.approx(22 / 1024)


@pytest.mark.parametrize(
    ("only_base", "only_candidate", "p"), [(0, 0, 1), (1, 1, 1), (5, 7, 0.774414), (20000, 20000, 1)]
)
def test_mcnemar_of_even_splits(only_base, only_candidate, p):
    """Never above 1, and large counts do not overflow."""
    base = np.repeat([True, False], [only_base, only_candidate])
    assert mcnemar(base, ~base).p == pytest.approx(p, abs=1e-6)


def test_the_paired_interval_has_the_spread_of_the_discordant_rows():
    """With b and c discordant of n rows the standard error is sqrt(b + c - (b - c)^2 / n) / n."""
    labels = np.zeros(1000, int)
    base, candidate = labels.copy(), labels.copy()
    base[:60], candidate[40:140] = 1, 1  # 40 only the candidate gets, 80 only the base
    drop = paired_bootstrap(accuracy, base, candidate, labels, resamples=20_000, seed=1)
    error = 100 * np.sqrt(120 - 40**2 / 1000) / 1000
    assert drop.value == pytest.approx(4)
    assert (drop.low, drop.high) == pytest.approx((4 - 1.96 * error, 4 + 1.96 * error), abs=0.1)


def test_pairing_cancels_what_is_hard_for_both():
    """Two models that differ on one row have a narrow interval, however often both are wrong."""
    labels = np.zeros(500, int)
    base = np.repeat([0, 1], 250)
    candidate = base.copy()
    candidate[0] = 1
    drop = paired_bootstrap(accuracy, base, candidate, labels)
    assert drop.high - drop.low < 1


def test_the_same_seed_gives_the_same_interval():
    """And another seed another one."""
    base, candidate, labels = np.random.default_rng(0).integers(2, size=(3, 53))
    first, again, other = (paired_bootstrap(accuracy, base, candidate, labels, seed=seed) for seed in (5, 5, 6))
    assert first == again != other


def test_resamples_come_in_bounded_chunks(monkeypatch):
    """All of them, each of as many rows as there are."""
    monkeypatch.setattr(intervals, "CHUNK", 30)
    chunks = list(resample(rows=7, resamples=10, seed=0))
    assert [len(chunk) for chunk in chunks] == [4, 4, 2]
    assert all((chunk.sum(axis=1) == 7).all() for chunk in chunks)


def test_equal_answers_leave_room_for_what_was_not_seen():
    """Rule of three: no loss on 300 rows may hide one of 1 %."""
    assert with_unseen(Interval(0, 0, 0), 300) == Interval(0, 0, 1)
    assert with_unseen(Interval(2, -1, 5), 300) == Interval(2, -1, 5)


def test_paired_ratio_ignores_a_drifting_host():
    """The second model takes half as long in every round, while the rounds differ a hundredfold."""
    first = np.geomspace(1, 100, 31)
    assert paired_ratio(first, first / 2) == Interval(2, 2, 2)
