"""Texts made richer: some of their tokens replaced by others."""

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
    table: Array | None,
    protected: Collection[int],
    rng: np.random.Generator,
) -> list[Row]:
    """`count` copies of `rows`, in each of which about `share` of the tokens, and at least one, are replaced.

    A token becomes one of the 15 that lie nearest to it in `table` [vocabulary, width], or any token of the texts, as
    often the one as the other; without a table any. Neither the first nor the last token of a row is replaced, none
    that is `protected` or padding, and none becomes a protected one. ids: the input that holds the tokens. Rows in
    which nothing can be replaced have no copies.

    Jiao et al. 2019 (TinyBERT), section 3.3, https://arxiv.org/abs/1909.10351
    """
    tokens = np.setdiff1d(np.concatenate([row.feeds[ids] for row in rows]), list(protected))
    places = [_replaceable(row, ids, tokens) for row in rows]
    usable = [i for i, found in enumerate(places) if len(found)]
    if not usable or len(tokens) < 2:
        return []
    nearest = _nearest(table[tokens]) if table is not None else None
    made: list[Row] = []
    for i in np.resize(rng.permutation(usable), count):
        where = places[i][rng.random(len(places[i])) < share]
        where = where if len(where) else rng.choice(places[i], 1)
        values = rows[i].feeds[ids].copy()
        values[where] = _others(values[where], tokens, nearest, rng)
        made.append(Row({**rows[i].feeds, ids: values}, rows[i].real))
    return made


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
