"""Batches hold every row once, padded only where they must be, and say what is padding."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from onnxslim_bert.calibration import batches as module
from onnxslim_bert.calibration.batches import Batches as RoledBatches
from onnxslim_bert.calibration.batches import Inputs
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.calibration.tokenizer import Tokenizer, TokenRow
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError
from onnxslim_bert.model.role_names import InputRole, role_of

INT64, INT32, FLOAT32 = np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.float32)
BERT = {"input_ids": INT64, "attention_mask": INT64, "token_type_ids": INT64}


def Batches(dataset: Dataset, tokenizer: Tokenizer | None, inputs: Inputs, **options: Any) -> RoledBatches:  # noqa: N802
    """Batches for a model whose inputs are what they are called."""
    roles = {name: InputRole(role) for name in inputs if (role := role_of(name)) is not None}
    working = Working(options.pop("max_length", 128), tokenizer=tokenizer)
    return RoledBatches(dataset, inputs, roles, working, **options)


# Letters in a text; two special tokens come on top.
LENGTHS = (3, 1, 7, 3, 5, 1, 2, 3, 9, 3, 1)


@pytest.fixture
def tokenizer(letters: Path) -> Tokenizer:
    return load_tokenizer(letters)


@pytest.fixture
def dataset() -> Dataset:
    return Dataset("set", "all", tuple((" ".join("abcdefghij"[:length]),) for length in LENGTHS), None, None)


def feeds_dataset(**feeds: np.ndarray) -> Dataset:
    return Dataset("ready.npz", "all", (), None, None, feeds)


def test_every_row_comes_once_longest_first(dataset: Dataset, tokenizer: Tokenizer) -> None:
    """Rows of one length keep the order of the data set."""
    batches = Batches(dataset, tokenizer, BERT, batch_size=3)
    assert len(batches) == 4
    assert [batch.rows.tolist() for batch in batches] == [[8, 2, 4], [0, 3, 7], [9, 6, 1], [5, 10]]


def test_a_batch_holds_its_rows_and_marks_their_padding(dataset: Dataset, tokenizer: Tokenizer) -> None:
    """Every padded row, stripped by the mask, is what the tokenizer gives for its text."""
    for batch in Batches(dataset, tokenizer, BERT, batch_size=3):
        for index, row in enumerate(batch.rows):
            ((ids, _),) = tokenizer.encode([dataset.texts[row]], 20)
            real = batch.mask[index]
            assert batch.feeds["input_ids"][index, real].tolist() == ids
            assert set(batch.feeds["input_ids"][index, ~real]) <= {tokenizer.pad_id}
        np.testing.assert_array_equal(batch.feeds["attention_mask"], batch.mask)
        assert batch.mask.dtype == bool
        assert batch.mask.any(axis=0).all()


def test_a_second_pass_gives_the_same_batches(dataset: Dataset, tokenizer: Tokenizer) -> None:
    batches = Batches(dataset, tokenizer, BERT, batch_size=4)
    first, second = ([batch.feeds["input_ids"].tobytes() for batch in batches] for _ in range(2))
    assert first == second


def test_unsorted_rows_stay_in_order(dataset: Dataset, tokenizer: Tokenizer) -> None:
    batches = list(Batches(dataset, tokenizer, BERT, batch_size=4, sort_by_length=False))
    assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [batch.mask.shape[1] for batch in batches] == [9, 7, 11]


def test_lengths_are_counted_in_chunks(dataset: Dataset, tokenizer: Tokenizer) -> None:
    """However many rows there are, no more than a chunk is tokenized at once."""
    whole = [batch.rows.tolist() for batch in Batches(dataset, tokenizer, BERT, batch_size=3)]
    with patch.object(module, "COUNTED_AT_ONCE", 2):
        assert [batch.rows.tolist() for batch in Batches(dataset, tokenizer, BERT, batch_size=3)] == whole


def test_a_model_without_a_mask_gets_rows_of_one_length(dataset: Dataset, tokenizer: Tokenizer) -> None:
    batches = list(Batches(dataset, tokenizer, {"input_ids": INT32}, batch_size=3, sort_by_length=False))
    assert all(batch.mask.all() for batch in batches)
    assert [batch.rows.tolist() for batch in batches] == [[8], [2], [4], [0, 3, 7], [9], [6], [1, 5, 10]]


def test_a_fixed_length_pads_and_cuts(dataset: Dataset, tokenizer: Tokenizer) -> None:
    for batch in Batches(dataset, tokenizer, BERT, fixed_length=6):
        assert batch.mask.shape == (11, 6)
        assert batch.mask.sum(axis=1).tolist() == [min(LENGTHS[row] + 2, 6) for row in batch.rows]


def test_inputs_have_the_types_of_the_model(dataset: Dataset, tokenizer: Tokenizer) -> None:
    inputs: Inputs = {"input_ids": INT32, "input_mask": FLOAT32, "segment_ids": INT64}
    (batch,) = Batches(dataset, tokenizer, inputs)
    assert {name: values.dtype for name, values in batch.feeds.items()} == inputs


def test_segments_tell_the_texts_of_a_pair(tokenizer: Tokenizer) -> None:
    pairs = Dataset("set", "all", (("a", "b c"), ("a b c", "d")), None, None)
    (batch,) = Batches(pairs, tokenizer, BERT)
    assert batch.feeds["token_type_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 0]]


def test_texts_need_a_tokenizer_that_fits(dataset: Dataset, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="'set' is text: needed the model's tokenizer"):
        Batches(dataset, None, BERT)
    with pytest.raises(DataError, match="tokenizer has 14 tokens, embedding has 13 rows"):
        Batches(dataset, tokenizer, BERT, vocab_rows=13)
    with pytest.raises(DataError, match="rows of 3 tokens: needed at least 4"):
        Batches(dataset, tokenizer, BERT, max_length=3)
    Batches(dataset, tokenizer, BERT, vocab_rows=14, max_length=4)


def test_a_row_without_tokens_is_refused(dataset: Dataset) -> None:
    """A mask without a single token is NaN after softmax."""
    bare = Tokenizer(5, 0, 20, lambda texts, _: [TokenRow([], []) for _ in texts])
    with pytest.raises(DataError, match="'set', row 1: no tokens"):
        len(Batches(dataset, bare, BERT))


def test_feeds_pass_in_order_with_the_model_s_types() -> None:
    ids, mask = np.arange(15).reshape(3, 5), np.array([[1, 1, 1, 0, 0]] * 3)
    ready = feeds_dataset(input_ids=ids, attention_mask=mask, extra=ids)
    inputs: Inputs = {"input_ids": INT32, "attention_mask": FLOAT32}
    first, second = Batches(ready, None, inputs, batch_size=2)
    assert {name: values.dtype for name, values in first.feeds.items()} == inputs
    assert (first.rows.tolist(), second.rows.tolist()) == ([0, 1], [2])
    np.testing.assert_array_equal(first.feeds["input_ids"], ids[:2])
    np.testing.assert_array_equal(second.mask, mask[2:].astype(bool))


def test_feeds_without_a_mask_are_all_real() -> None:
    (batch,) = Batches(feeds_dataset(hidden=np.ones((3, 5, 7))), None, {"hidden": FLOAT32})
    assert batch.mask.shape == (3, 5)
    assert batch.mask.all()


@pytest.mark.parametrize(
    ("feeds", "inputs", "message"),
    [
        ({"ids": np.ones((3, 5))}, {"input_ids": INT64}, r"holds \['ids'\]: needed the model input 'input_ids'"),
        ({"input_ids": np.ones((3, 5))}, {"input_ids": INT64}, "'input_ids' is float64: the model needs int64"),
        ({"input_ids": np.full((3, 5), 9)}, {"input_ids": INT64}, "ids in 'input_ids' go from 9 to 9, embedding has 9"),
        ({"input_ids": np.ones((3, 4), int)}, {"input_ids": INT64}, r"is \[3, 4\]: the model needs rows of 5"),
        ({"input_ids": np.ones(3, int)}, {"input_ids": INT64}, r"needed arrays of shape \[rows, seq\]"),
    ],
)
def test_feeds_that_the_model_cannot_take_are_refused(
    feeds: dict[str, np.ndarray], inputs: dict[str, np.dtype[np.generic]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Batches(feeds_dataset(**feeds), None, inputs, fixed_length=5, vocab_rows=9)


def test_feeds_without_a_real_token_are_refused() -> None:
    """One row that has one will do."""
    feeds, inputs = {"input_ids": np.ones((3, 5), int)}, {"input_ids": INT64, "attention_mask": INT64}
    mask = np.zeros((3, 5), int)
    with pytest.raises(DataError, match="no row has a real token: the mask hides all"):
        Batches(feeds_dataset(**feeds, attention_mask=mask), None, inputs)
    mask[2, 0] = 1
    assert Batches(feeds_dataset(**feeds, attention_mask=mask), None, inputs)


@pytest.mark.parametrize(("kept", "cut"), [(20, 0), (11, 0), (10, 1), (9, 1), (8, 2), (5, 3), (4, 7)])
def test_rows_that_are_cut_are_counted(dataset: Dataset, tokenizer: Tokenizer, kept: int, cut: int) -> None:
    """A row as long as what is kept is whole."""
    assert Batches(dataset, tokenizer, BERT, max_length=kept).count_cut() == cut == sum(n + 2 > kept for n in LENGTHS)
