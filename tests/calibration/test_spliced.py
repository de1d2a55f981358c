"""Long rows from short ones."""

import numpy as np
from graphs import batches, prepared

from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.spliced import spliced
from onnxslim_bert.passes.canonicalize import Canonicalize


def batch(ids, mask, start=0, **others):
    ids, mask = np.array(ids), np.array(mask)
    feeds = {"input_ids": ids, "attention_mask": mask, **others}
    return Batch(feeds, mask.astype(bool), np.arange(start, start + len(ids)))


def test_each_row_is_followed_by_the_next():
    """Without their first token and without padding, the last row by the first."""
    rows = [batch([[1, 5, 6], [1, 7, 0]], [[1, 1, 1], [1, 1, 0]]), batch([[1, 8, 9, 2]], [[1, 1, 1, 1]], start=2)]
    first, second = spliced(rows, 8)
    assert first.feeds["input_ids"].tolist() == [[1, 5, 6, 7, 8, 9, 2, 5], [1, 7, 8, 9, 2, 5, 6, 7]]
    assert second.feeds["input_ids"].tolist() == [[1, 8, 9, 2, 5, 6, 7, 8]]
    for made, given in zip((first, second), rows, strict=True):
        assert made.mask.all()
        assert made.mask.shape == made.feeds["attention_mask"].shape == (len(given.rows), 8)
        assert (made.feeds["attention_mask"] == 1).all()
        assert made.rows is given.rows
        assert {name: values.dtype for name, values in made.feeds.items()} == {
            name: values.dtype for name, values in given.feeds.items()
        }


def test_long_rows_are_cut():
    (made,) = spliced([batch([[1, 5, 6, 7]], [[1, 1, 1, 1]])], 3)
    assert made.feeds["input_ids"].tolist() == [[1, 5, 6]]


def test_a_single_token_has_nothing_to_be_followed_by_but_other_rows():
    (made,) = spliced([batch([[1, 0], [1, 4]], [[1, 0], [1, 1]])], 4)
    assert made.feeds["input_ids"].tolist() == [[1, 4, 4, 4], [1, 4, 4, 4]]


def test_inputs_without_a_number_for_each_token_stay():
    given = batch([[1, 5]], [[1, 1]], bias=np.array([[0.5, 0.25, 0.125]]))
    (made,) = spliced([given], 6)
    assert made.feeds["bias"] is given.feeds["bias"]


def test_a_model_takes_them():
    """Every input at the same length."""
    model = prepared("bert-ts17-sdpa", Canonicalize())
    for made in spliced(batches(model), 21):
        assert {values.shape for values in made.feeds.values()} == {(len(made.rows), 21)}
