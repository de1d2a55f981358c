"""Rows that are harder than the texts they are made of: unusual ids, very few tokens, as many as fit, two texts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.tokenizer import PlacedRow

SHORT = (1, 2, 3, 4, 6, 8)  # tokens of short rows


@dataclass(frozen=True)
class Counts:
    """How many hard rows to make.

    replaced: rows with other ids. short: rows of each number of tokens in SHORT. full: rows of as many tokens as fit.
    Example: Counts(32, 6, 16) are 84 rows, where more than 8 tokens fit.
    """

    replaced: int
    short: int
    full: int


def hard_rows(
    rows: Sequence[PlacedRow], vocabulary: Array, counts: Counts, *, longest: int, types: int = 1, seed: int = 0
) -> list[PlacedRow]:
    """Rows such as a model meets in use and calibration texts rarely hold, for ranges and for judging them.

    Of three kinds: `rows` of which half or all of the ids are replaced, but for the first and the last; rows of each
    number of tokens in SHORT; rows of `longest` tokens, several joined. Every other row of the last two kinds has its
    ids replaced, too. Ids are drawn from `vocabulary`, each as likely as any other, so that most are ids that no text
    had. Where tokens have two `types` or more, the second half of every other row has type 1, as in a pair of texts.
    """
    rng = np.random.default_rng(seed)
    texts = [np.asarray(row.ids, np.int64) for row in rows]
    stream = np.concatenate([ids[1:] if len(ids) > 1 else ids for ids in texts])

    def replaced(ids: Array, share: float) -> Array:
        drawn = rng.random(len(ids)) < share
        if len(ids) > 2:
            drawn[[0, -1]] = False  # what begins and ends every text
        return np.where(drawn, rng.choice(vocabulary, len(ids)), ids)

    def cut(ids: Array, length: int) -> Array:
        return np.append(ids[: length - 1], ids[-1:]) if len(ids) >= length > 1 else np.resize(ids, length)

    def joined(number: int) -> Array:
        behind = np.roll(stream, -number * longest)
        return np.append(texts[number % len(texts)][:1], np.resize(behind, longest - 1))

    made = [replaced(texts[i], (0.5, 1.0)[k % 2]) for k, i in enumerate(_spread(counts.replaced, len(texts)))]
    for length in SHORT:
        if length < longest:
            few = [cut(texts[i], length) for i in _spread(counts.short, len(texts))]
            made += [replaced(ids, i % 2) for i, ids in enumerate(few)]
    made += [replaced(joined(i), i % 2) for i in range(counts.full)]
    return [PlacedRow(ids.tolist(), _types(len(ids), types > 1 and i % 4 in (1, 2)), ()) for i, ids in enumerate(made)]


def padded_in_front(batch: Batch) -> Batch:
    """The same rows with their padding before their tokens.

    Example: ids [[7, 8, 0], [9, 0, 0]] of two tokens and of one give [[0, 7, 8], [0, 0, 9]].
    """
    order = np.argsort(batch.mask, axis=1, kind="stable")

    def moved(values: Array) -> Array:
        return np.take_along_axis(values, order, axis=1)

    feeds = {name: moved(values) for name, values in batch.feeds.items()}
    words = None if batch.words is None else moved(batch.words)
    return replace(batch, feeds=feeds, mask=moved(batch.mask), words=words)


def _spread(count: int, size: int) -> list[int]:
    """`count` of the numbers from 0 to size - 1, evenly spread, and from the start again where there are fewer."""
    return [i * max(size // count, 1) % size for i in range(count)]


def _types(length: int, pair: bool) -> list[int]:
    first = length - length // 2 if pair else length
    return [0] * first + [1] * (length - first)
