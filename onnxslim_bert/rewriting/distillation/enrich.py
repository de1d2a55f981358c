"""Texts made richer: two put together as one, and some of their tokens replaced by others."""

from collections.abc import Collection, Sequence

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.rewriting.distillation.texts import Row

NEAREST = 15  # Jiao et al. 2019, K
AT_ONCE = 512  # tokens whose nearness to all others is held at once


def enriched(
    rows: Sequence[Row],
    count: int,
    ids: str,
    share: float,
    join: float,
    table: Array | None,
    protected: Collection[int],
    rng: np.random.Generator,
) -> list[Row]:
    """`count` copies of `rows`, in each of which about `share` of the tokens, and at least one, are replaced.

    The share `join` of the copies are two texts, one behind the other, no longer than the longest row. A token becomes
    one of the 15 that lie nearest to it in `table` [vocabulary, width], or any token of the texts, as often the one as
    the other; without a table any. Neither the first nor the last token of a row is replaced, none that is `protected`
    or padding, and none becomes a protected one. ids: the input that holds the tokens. Rows in which nothing can be
    replaced have no copies.

    Jiao et al. 2019 (TinyBERT), section 3.3, https://arxiv.org/abs/1909.10351
    """
    tokens = np.setdiff1d(np.concatenate([row.feeds[ids] for row in rows]), list(protected))
    places = [_replaceable(row, ids, tokens) for row in rows]
    usable = [i for i, found in enumerate(places) if len(found)]
    if not usable or len(tokens) < 2:
        return []
    nearest = _nearest(table[tokens]) if table is not None else None
    longest = max(len(row.real) for row in rows)
    made: list[Row] = []
    for i in np.resize(rng.permutation(usable), count):
        row, where = rows[i], places[i]
        if rng.random() < join:
            row = joined(row, rows[int(rng.integers(len(rows)))], ids, longest)
            where = _replaceable(row, ids, tokens)
        chosen = where[rng.random(len(where)) < share]
        chosen = chosen if len(chosen) else rng.choice(where, 1)
        values = row.feeds[ids].copy()
        values[chosen] = _others(values[chosen], tokens, nearest, rng)
        made.append(Row({**row.feeds, ids: values}, row.real))
    return made


def joined(first: Row, second: Row, ids: str, longest: int) -> Row:
    """The tokens of both, but for the special ones at the ends of the second, which is cut to `longest` in all.

    `first` alone where another input, such as the segments of a pair, differs from token to token or between the two.
    """
    others = {name: np.unique(np.concatenate([values, second.feeds[name]])) for name, values in first.feeds.items()}
    added = second.feeds[ids][1:-1][: max(longest - len(first.real), 0)]
    if any(len(values) > 1 for name, values in others.items() if name != ids) or not (first.real.all() and len(added)):
        return first
    values = np.concatenate([first.feeds[ids][:-1], added, first.feeds[ids][-1:]])
    feeds = {name: np.full(len(values), value[0], first.feeds[name].dtype) for name, value in others.items()}
    return Row(feeds | {ids: values}, np.ones(len(values), bool))


def _replaceable(row: Row, ids: str, tokens: Array) -> Array:
    """The places in a row whose tokens may be replaced."""
    inner = np.flatnonzero(row.real)[1:-1]
    return inner[np.isin(row.feeds[ids][inner], tokens)]


def _others(old: Array, tokens: Array, nearest: Array | None, rng: np.random.Generator) -> Array:
    """A token for each one of `old`."""
    drawn = rng.integers(0, len(tokens), len(old))
    if nearest is not None:
        near = nearest[np.searchsorted(tokens, old), rng.integers(0, nearest.shape[1], len(old))]
        drawn = np.where(rng.random(len(old)) < 0.5, near, drawn)
    return tokens[drawn]


def _nearest(vectors: Array) -> Array:
    """The places of the nearest other rows by angle: vectors [tokens, width] -> [tokens, 15 or fewer]."""
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    count = min(NEAREST, len(units) - 1)
    found = np.empty((len(units), count), np.int64)
    for start in range(0, len(units), AT_ONCE):
        chunk = np.arange(start, min(start + AT_ONCE, len(units)))
        nearness = units[chunk] @ units.T
        nearness[np.arange(len(chunk)), chunk] = -np.inf
        found[chunk] = np.argpartition(-nearness, count - 1, axis=1)[:, :count]
    return found
