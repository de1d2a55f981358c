"""Hard rows: ids that no text has, few tokens, as many as fit, two texts."""

import numpy as np
import pytest

from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.hard_rows import SHORT, Counts, hard_rows, padded_in_front
from onnxslim_bert.calibration.tokenizer import PlacedRow

FIRST, LAST = 101, 102
TEXTS = [PlacedRow([FIRST, *range(10, 10 + n), LAST], [0] * (n + 2), ()) for n in (3, 7, 12)]
VOCABULARY = np.arange(200, 5000)
COUNTS = Counts(replaced=12, short=5, full=4)


def made(texts=TEXTS, longest=64, **options):
    return hard_rows(texts, VOCABULARY, COUNTS, longest=longest, **options)


def test_there_are_as_many_of_each_kind_as_asked_for():
    lengths = [len(row.ids) for row in made()]
    assert len(lengths) == 12 + 5 * len(SHORT) + 4
    assert lengths[:12] == [len(TEXTS[i % 3].ids) for i in range(12)]
    assert lengths[12:-4] == [length for length in SHORT for _ in range(5)]
    assert lengths[-4:] == [64] * 4


def test_ids_are_the_texts_own_or_of_the_vocabulary():
    """Replaced rows keep what begins and ends every text; of a fully replaced one no other id is left."""
    own = {token for row in TEXTS for token in row.ids}
    for row in made():
        assert {token for token in row.ids if token not in VOCABULARY} <= own
    for whole in made()[1:12:2]:
        assert (whole.ids[0], whole.ids[-1]) == (FIRST, LAST)
        assert set(whole.ids[1:-1]) <= set(VOCABULARY.tolist())


def test_the_second_half_is_of_the_second_text_where_tokens_have_types():
    """For half of the rows; without types for none."""
    assert not any(any(row.type_ids) for row in made())
    pairs = [row for row in made(types=2) if any(row.type_ids)]
    assert 0 < len(pairs) < len(made())
    for row in pairs:
        assert row.type_ids == sorted(row.type_ids)
        assert sum(row.type_ids) == len(row.ids) // 2


@pytest.mark.parametrize("longest", [1, 2, 5, 9])
def test_no_row_is_longer_than_what_fits(longest):
    texts = [PlacedRow(row.ids[:longest], [0] * longest, ()) for row in TEXTS]
    assert max(len(row.ids) for row in made(texts, longest)) == longest


def test_the_same_seed_makes_the_same_rows():
    assert made(seed=3) == made(seed=3)
    assert made(seed=3) != made(seed=4)


def test_one_text_of_one_token_is_enough():
    rows = made([PlacedRow([7], [0], ())])
    assert all(row.ids for row in rows)


def test_padding_goes_in_front_of_every_row():
    """With what each input says of it; a full row stays."""
    mask = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
    feeds = {"ids": np.array([[7, 8, 0], [9, 0, 0], [4, 5, 6]]), "padding": 1 - mask.astype(np.int64)}
    moved = padded_in_front(Batch(feeds, mask, np.arange(3), words=mask.astype(np.int64) - 1))
    assert moved.feeds["ids"].tolist() == [[0, 7, 8], [0, 0, 9], [4, 5, 6]]
    assert moved.mask.tolist() == [[False, True, True], [False, False, True], [True] * 3]
    assert (moved.feeds["padding"] == 1 - moved.mask).all()
    assert moved.words is not None
    assert ((moved.words >= 0) == moved.mask).all()
