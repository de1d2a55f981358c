"""Model inputs batch by batch: tokenized when asked for, padded as little as possible, the padding marked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.tokenizer import PlacedRow, Tokenizer, TokenRow
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError
from onnxslim_bert.model.role_names import Roles

Inputs = Mapping[str, np.dtype[Any]]

SPECIAL_TOKENS = 4  # as many as a RoBERTa pair has; the tokenizers library does not cut below them
COUNTED_AT_ONCE = 1024  # rows tokenized together when only their lengths are wanted


@dataclass(frozen=True)
class Batch:
    """One batch.

    feeds: model inputs by name, each [batch, seq].
    mask: [batch, seq] bool, True where there is a real token.
    rows: [batch] indices into the data set.
    words: [batch, seq], at the first token of each word its number in the row, -1 at all others; of texts every real
    token is a word. None for ready inputs.
    """

    feeds: dict[str, Array]
    mask: Array
    rows: Array
    words: Array | None = None


class OneLength(NamedTuple):
    """Rows of one length alone share a batch, as many as have `tokens` together."""

    tokens: int


class Batches:
    """The batches of a data set: each is made when it is asked for, and going through them again gives the same ones.

    inputs: the model's inputs, name -> dtype. roles: what each of them takes (`input_roles.roles_of`).
    working: its tokenizer reads texts, which are cut to its `max_length`.
    batch_size: rows in a batch, or `OneLength`.
    sort_by_length: texts of similar length together, longest first; otherwise in the data set's order.
    fixed_length: the length of every batch, for a model with static shapes.
    vocab_rows: rows of the model's embedding; every id must be below.

    A model without a mask input cannot tell padding from text: its batches hold rows of one length.
    Ready inputs (`dataset.feeds`) pass as they are, in order; without a mask among `roles` all their tokens are real.
    Raises DataError when texts come without a tokenizer, or rows do not fit the model.
    """

    def __init__(
        self,
        dataset: Dataset,
        inputs: Inputs,
        roles: Roles,
        working: Working,
        *,
        batch_size: int | OneLength = 16,
        sort_by_length: bool = True,
        fixed_length: int | None = None,
        vocab_rows: int | None = None,
    ) -> None:
        self._batch_size = batch_size
        tokenizer = working.tokenizer
        self._source: _Texts | _Feeds
        if dataset.feeds is not None:
            self._source = _Feeds(dataset.feeds, inputs, roles)
            self._source.check(dataset.name, fixed_length, vocab_rows)
        elif tokenizer is None:
            raise DataError(f"'{dataset.name}' is text: needed the model's tokenizer: give --tokenizer FOLDER")
        else:
            tokenizer.check_fits(vocab_rows)
            limit = min(working.max_length, fixed_length or working.max_length)
            alike = isinstance(batch_size, OneLength)
            if limit < SPECIAL_TOKENS:
                raise DataError(
                    f"rows of {limit} tokens: needed at least {SPECIAL_TOKENS}, for the special tokens alone"
                )
            self._source = _Texts(dataset, tokenizer, inputs, roles, limit, fixed_length, sort_by_length, alike)

    def count_cut(self) -> int:
        """Rows that are longer than the tokens kept of them."""
        return self._source.count_cut() if isinstance(self._source, _Texts) else 0

    def count_unread(self) -> int:
        """Words of which the tokenizer makes no token, a zero-width space for instance; 0 where rows are no words."""
        return self._source.count_unread() if isinstance(self._source, _Texts) else 0

    def __iter__(self) -> Iterator[Batch]:
        return (self._source.batch(rows) for rows in self._plan)

    def __len__(self) -> int:
        return len(self._plan)

    @cached_property
    def _plan(self) -> list[Array]:
        """The rows of every batch."""
        return [
            run[start : start + size]
            for length, run in self._source.runs()
            for size in [self._size(length)]
            for start in range(0, len(run), size)
        ]

    def _size(self, length: int) -> int:
        """Rows of so many tokens in a batch."""
        size = self._batch_size
        return max(size.tokens // max(length, 1), 1) if isinstance(size, OneLength) else size


@dataclass(frozen=True)
class _Texts:
    """Batches of texts, cut to `max_length` tokens."""

    dataset: Dataset
    tokenizer: Tokenizer
    inputs: Inputs
    roles: Roles
    max_length: int
    fixed_length: int | None
    sort_by_length: bool
    alike: bool

    def runs(self) -> list[tuple[int, Array]]:
        """All rows in order, cut where a batch must end, with the length of the longest of each part."""
        rows = np.arange(len(self.dataset))
        unmasked = all(each.role != "mask" for each in self.roles.values())
        one_length = self.fixed_length is None and (self.alike or unmasked)
        if not (self.sort_by_length or one_length):
            return [(self.fixed_length or self.max_length, rows)]
        chunks = (rows[start : start + COUNTED_AT_ONCE] for start in range(0, len(rows), COUNTED_AT_ONCE))
        lengths = np.array([len(row.ids) for chunk in chunks for row in self._tokens(chunk)])
        # Longest first: the largest buffers are allocated once and reused, instead of growing with every batch.
        order = np.argsort(-lengths, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1) if one_length else [order]
        return [(self.fixed_length or int(lengths[part].max(initial=0)), part) for part in parts]

    def count_cut(self) -> int:
        """How many rows lose tokens to `max_length`; 0 for passages, which are read in windows."""
        rows = self.dataset.texts
        if self.dataset.form == "words":
            return sum(self.tokenizer.words_are_cut(rows, self.max_length))
        if self.dataset.form != "texts":
            return 0
        chunks = (rows[start : start + COUNTED_AT_ONCE] for start in range(0, len(rows), COUNTED_AT_ONCE))
        return sum(sum(self.tokenizer.are_cut(chunk, self.max_length)) for chunk in chunks)

    def count_unread(self) -> int:
        """The words without a token; of rows that are cut, those before the last that has one."""
        if self.dataset.form != "words":
            return 0
        rows = self.dataset.texts
        cut = self.tokenizer.words_are_cut(rows, self.max_length)
        read = self.tokenizer.encode_words(rows, self.max_length)
        wanted = (
            max(row.words) + 1 if is_cut else len(words) for row, is_cut, words in zip(read, cut, rows, strict=True)
        )
        return sum(wanted) - sum(word >= 0 for row in read for word in row.words)

    def batch(self, rows: Array) -> Batch:
        tokens = self._tokens(rows)
        shape = len(rows), self.fixed_length or max(len(row.ids) for row in tokens)
        ids, types, mask = np.full(shape, self.tokenizer.pad_id), np.zeros(shape, np.int64), np.zeros(shape, bool)
        words = np.full(shape, -1)
        for index, row in enumerate(tokens):
            real = np.s_[index, : len(row.ids)]
            ids[real], types[real], mask[real] = row.ids, row.type_ids, True
            words[real] = row.words if isinstance(row, PlacedRow) and row.words else range(len(row.ids))
        feeds: dict[str, Array] = {}
        for name, each in self.roles.items():
            values = {"ids": ids, "types": types}.get(each.role, each.written(mask))
            feeds[name] = values.astype(self.inputs[name])
        return Batch(feeds, mask, rows, words)

    def _tokens(self, rows: Array) -> Sequence[TokenRow | PlacedRow]:
        texts = [self.dataset.texts[row] for row in rows]
        tokens: Sequence[TokenRow | PlacedRow]
        if self.dataset.form == "windows":
            tokens = [self.dataset.encoded[row] for row in rows]
        elif self.dataset.form == "words":
            tokens = self.tokenizer.encode_words(texts, self.max_length)
        elif self.dataset.form == "passages":
            tokens = [self.tokenizer.encode_passage(pair[0], pair[1], self.max_length)[0] for pair in texts]
        else:
            tokens = self.tokenizer.encode(texts, self.max_length)
        for row, found in zip(rows, tokens, strict=True):
            if not found.ids:
                raise DataError(f"'{self.dataset.name}', row {row + 1}: no tokens: needed a text that is not empty")
        return tokens


@dataclass(frozen=True)
class _Feeds:
    """Batches of ready inputs; the mask among them, if any, marks the padding."""

    feeds: Mapping[str, Array]
    inputs: Inputs
    roles: Roles

    def runs(self) -> list[tuple[int, Array]]:
        first = next(iter(self.feeds.values()))
        return [(first.shape[1] if first.ndim > 1 else 1, np.arange(len(first)))]

    def batch(self, rows: Array) -> Batch:
        feeds = {name: self.feeds[name][rows].astype(dtype) for name, dtype in self.inputs.items()}
        masks = (
            each.is_real(values)
            for name, values in feeds.items()
            if (each := self.roles.get(name)) is not None and each.role == "mask" and values.ndim == 2
        )
        sequence = next(values for values in feeds.values() if values.ndim > 1)
        return Batch(feeds, next(masks, np.ones(sequence.shape[:2], bool)), rows)

    def check(self, name: str, fixed_length: int | None, vocab_rows: int | None) -> None:
        """Raises DataError for what the model cannot take."""
        for need, dtype in self.inputs.items():
            if need not in self.feeds:
                raise DataError(f"'{name}' holds {sorted(self.feeds)}: needed the model input '{need}'")
            values = self.feeds[need]
            if values.dtype.kind == "f" and dtype.kind != "f":
                raise DataError(f"'{name}': '{need}' is {values.dtype}: the model needs {dtype}")
            if fixed_length and values.ndim > 1 and values.shape[1] != fixed_length:
                raise DataError(f"'{name}': '{need}' is {list(values.shape)}: the model needs rows of {fixed_length}")
            is_ids = need in self.roles and self.roles[need].role == "ids"
            low, high = (int(values.min()), int(values.max())) if is_ids else (0, 0)
            if vocab_rows is not None and not 0 <= low <= high < vocab_rows:
                raise DataError(f"'{name}': ids in '{need}' go from {low} to {high}, embedding has {vocab_rows} rows")
        if all(self.feeds[need].ndim < 2 for need in self.inputs):
            raise DataError(f"'{name}': no input has a sequence: needed arrays of shape [rows, seq]")
        if not self.batch(np.arange(len(self.feeds[next(iter(self.inputs))]))).mask.any():
            raise DataError(f"'{name}': no row has a real token: the mask hides all")
