"""Rows come out of their batches and go into others as they were."""

import numpy as np
import pytest
from graphs import batches, prepared

from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.errors import PassError
from onnxslim_bert.rewriting.distillation.texts import Row, Texts, padding_of, rows_of

PAD = {"ids": np.int64(9), "mask": np.int64(0)}


def row(*ids):
    return Row({"ids": np.array(ids), "mask": np.ones(len(ids), np.int64)}, np.ones(len(ids), bool))


def texts(lengths, padding=PAD, **options):
    return Texts([row(*range(i, i + length)) for i, length in enumerate(lengths)], padding, **options)


def test_rows_that_are_put_together_again_are_the_batch_that_they_came_from():
    given = batches(prepared("bert-ts17-sdpa"))
    for batch in given:
        rows = rows_of([batch])
        again = Texts(rows, padding_of([batch])).together(np.arange(len(rows)))
        np.testing.assert_array_equal(again.mask, batch.mask)
        for name, values in batch.feeds.items():
            assert again.feeds[name].dtype == values.dtype
            np.testing.assert_array_equal(again.feeds[name][batch.mask], values[batch.mask])


def test_padding_inside_a_row_stays():
    mask = np.array([[True, False, True, False]])
    (found,) = rows_of([Batch({"ids": np.array([[4, 0, 5, 0]])}, mask, np.arange(1))])
    assert found.feeds["ids"].tolist() == [4, 0, 5]
    assert found.real.tolist() == [True, False, True]


def test_what_fills_padding_is_what_filled_it():
    mask = np.array([[True, True, True], [True, False, False]])
    padded = Batch({"ids": np.array([[4, 5, 6], [4, 7, 7]])}, mask, np.arange(2))
    full = Batch({"ids": np.array([[4, 5]])}, np.ones((1, 2), bool), np.arange(1))
    assert padding_of([full, padded]) == {"ids": 7}
    assert padding_of([full]) is None


def test_an_epoch_has_every_row_once_in_batches_of_like_length():
    given = texts([3, 9, 4, 1, 8, 2, 7, 5, 6] * 3, batch=4)
    seen = [batch.rows.tolist() for batch in given.epoch(np.random.default_rng(0))]
    assert sorted(i for rows in seen for i in rows) == list(range(27))
    assert [len(rows) for rows in seen].count(4) == 6
    spans = [np.ptp([len(given.rows[i].real) for i in rows]) for rows in seen]
    assert max(spans) <= 2


def test_an_epoch_is_the_same_for_a_seed_and_another_for_another():
    given = texts(list(range(1, 30)), batch=4)
    orders = [[b.rows.tolist() for b in given.epoch(np.random.default_rng(seed))] for seed in (5, 5, 6)]
    assert orders[0] == orders[1] != orders[2]


def test_without_known_padding_a_batch_holds_one_length():
    given = texts([3, 2, 3, 2, 2, 3, 3], padding=None, batch=3)
    for batch in given.epoch(np.random.default_rng(1)):
        assert batch.mask.all()
    assert sorted(len(batch.rows) for batch in given.epoch()) == [1, 3, 3]


def test_batches_of_a_fixed_size_and_length():
    seen = list(texts([3, 2, 3, 2, 2, 3, 3], batch=3, fixed=True, length=5).epoch())
    assert [batch.feeds["ids"].shape for batch in seen] == [(3, 5), (3, 5)]
    assert (seen[0].feeds["ids"][~seen[0].mask] == 9).all()


def test_rows_are_the_same_by_what_they_hold():
    assert row(1, 2).key == row(1, 2).key != row(2, 1).key


def test_an_input_that_has_no_value_for_each_token_is_refused():
    batch = Batch({"bias": np.zeros((2, 3, 3))}, np.ones((2, 3), bool), np.arange(2))
    with pytest.raises(PassError, match=r"input 'bias' is \[2, 3, 3\]; needed one value for each token, \[2, 3\]"):
        rows_of([batch])
