"""Copies of texts in which some tokens are others, and nothing else is changed."""

import numpy as np
import pytest

from onnxslim_bert.rewriting.distillation.enrich import enriched, joined
from onnxslim_bert.rewriting.distillation.texts import Row

START, END, COMMA = 1, 2, 3


def rows(count=20, length=30, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        ids = np.array([START, *rng.integers(10, 60, length), COMMA, END])
        made.append(Row({"ids": ids, "mask": np.ones_like(ids)}, np.ones(len(ids), bool)))
    return made


def copies(given, count, share=0.2, table=None, seed=0, join=0.0):
    return enriched(given, count, "ids", share, join, table, {START, END, COMMA}, np.random.default_rng(seed))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_about_the_share_asked_for_is_replaced(share):
    given = rows()
    made = copies(given * 10, 200, share)
    by_key = {row.feeds["ids"][[0, -1]].tobytes() for row in given}
    assert {row.feeds["ids"][[0, -1]].tobytes() for row in made} == by_key
    changed = [min((row.feeds["ids"] != own.feeds["ids"]).sum() for own in given) for row in made]
    assert np.mean(changed) / 30 == pytest.approx(share, rel=0.1)
    assert min(changed) >= 0


def test_what_is_protected_stays_and_is_not_put_in():
    for row in copies(rows(), 100, 1.0):
        ids = row.feeds["ids"]
        assert ids[[0, -2, -1]].tolist() == [START, COMMA, END]
        assert np.isin(ids[1:-2], np.arange(10, 60)).all()
        assert (row.feeds["mask"] == 1).all()


@pytest.mark.parametrize(("has_table", "same"), [(True, 0.75), (False, 0.5)])
def test_half_of_the_replaced_tokens_lie_near_to_what_they_replace(has_table, same):
    """Two clusters of 25 tokens: a neighbour lies in a token's own, any token does in half of the cases."""
    table = np.zeros((60, 8), np.float32)
    table[10:] = np.repeat(np.eye(8)[:2], 25, 0) + 0.01 * np.random.default_rng(1).standard_normal((50, 8))
    one_text = Row({"ids": np.array([START, *range(10, 60), END])}, np.ones(52, bool))
    made = copies([one_text], 200, 1.0, table if has_table else None)
    clusters = np.array([row.feeds["ids"][1:-1] >= 35 for row in made])
    assert (clusters == (np.arange(10, 60) >= 35)).mean() == pytest.approx(same, abs=0.02)


def test_about_the_share_asked_for_are_two_texts():
    given = [*rows(20, 10), *rows(1, 40)]
    made = copies(given, 400, join=0.25)
    lengths = np.array([len(row.real) for row in made])
    assert np.isin(lengths, [13, 43], invert=True).mean() == pytest.approx(0.25 * 20 / 21, abs=0.05)
    assert lengths.max() == 43


def test_two_texts_are_the_tokens_of_both():
    first, second = rows(2, 5)
    both = joined(first, second, "ids", 100)
    ids = [row.feeds["ids"].tolist() for row in (first, second, both)]
    assert ids[2] == [*ids[0][:-1], *ids[1][1:-1], END]
    assert both.feeds["mask"].tolist() == [1] * len(ids[2])
    assert len(joined(first, second, "ids", 10).real) == 10
    assert joined(first, second, "ids", 8) is first


def test_pairs_of_texts_stay_as_they_are():
    pair, other = (Row({**row.feeds, "types": np.arange(len(row.real)) // 4}, row.real) for row in rows(2, 5))
    assert joined(pair, other, "ids", 100) is pair


def test_copies_are_the_same_for_a_seed():
    first, second, other = (copies(rows(), 10, seed=seed) for seed in (3, 3, 4))
    assert [row.key for row in first] == [row.key for row in second] != [row.key for row in other]


def test_texts_with_nothing_to_replace_have_no_copies():
    bare = Row({"ids": np.array([START, COMMA, END])}, np.ones(3, bool))
    assert copies([bare], 5) == []
    assert len(copies([bare, *rows(2)], 5)) == 5


def test_the_texts_stay_as_they_are():
    given = rows(3)
    before = [row.key for row in given]
    copies(given, 10, 1.0)
    assert [row.key for row in given] == before
