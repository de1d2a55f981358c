"""Reorder the heads and neurons of one layer so that they resemble another layer's; its results stay the same.

Two layers can share a matrix well only if head 3 of one does about what head 3 of the other does. A layer
here is a dict of `Dense` by role: query, key, value, output, up, down, and gate where neurons are gated.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.rewriting.weights.sharing_fit import Dense

Turn = Callable[[Array], Array]  # an orthogonal change of the last axis


def align(first: Mapping[str, Dense], other: Mapping[str, Dense], heads: int) -> dict[str, Dense]:
    """The layer `other` with each head and neuron in the place of the one of `first` that it resembles most.

    The layer computes what it did before. heads: their number; 0 leaves them in their places. Weight
    matching of Ainsworth et al. 2022, https://arxiv.org/abs/2209.04836.
    """
    aligned = dict(other)
    if "query" in other and heads:
        aligned |= align_heads(first, other, heads)
    if "up" in other:
        aligned |= align_neurons(first, other)
    return aligned


def align_neurons(first: Mapping[str, Dense], other: Mapping[str, Dense]) -> dict[str, Dense]:
    """up, gate and down of `other`, with its neurons in the order of the neurons of `first` that they resemble.

    A neuron is a column of up and gate and a row of down. How alike two neurons are is the sum of cosines: of their
    columns, weighted by the inputs' covariance, and of their rows of down.
    """
    reading = [role for role in ("gate", "up") if role in other]
    down = first["down"].weight, other["down"].weight
    neurons = len(down[0])
    read = sum(
        _overlaps(first[r].weight, other[r].weight, first[r].covariance + other[r].covariance, heads=neurons)
        for r in reading
    )
    written = _overlaps(down[0].T, down[1].T, None, heads=neurons)
    order = match((read + written)[:, :, 0, 0])

    def turn(values: Array) -> Array:
        return values[..., order]

    return {role: _turn_outputs(other[role], turn) for role in reading} | {"down": _turn_inputs(other["down"], turn)}


def align_heads(first: Mapping[str, Dense], other: Mapping[str, Dense], heads: int) -> dict[str, Dense]:
    """query, key, value and output of `other`, with heads in the order of those of `first` and turned towards them.

    A head computes scores q kᵀ and results p v W, with probabilities p and its rows W of output. An orthogonal matrix R
    changes neither, if q and k become q R and k R, or v and W become v R and Rᵀ W. So a head may be turned before it is
    compared: two heads are as alike as the best such turns make them (Procrustes: Schönemann 1966).
    """
    query, key, value = (
        _overlaps(first[role].weight, other[role].weight, first[role].covariance + other[role].covariance, heads)
        for role in ("query", "key", "value")
    )
    output = _overlaps(first["output"].weight.T, other["output"].weight.T, None, heads)
    scores, results = (np.linalg.svd(overlaps) for overlaps in (query + key, value + output))
    order = match(scores.S.sum(2) + results.S.sum(2))
    turn_scores, turn_results = (_turn_heads(u @ vt, order) for u, _, vt in (scores, results))
    return {
        "query": _turn_outputs(other["query"], turn_scores),
        "key": _turn_outputs(other["key"], turn_scores),
        "value": _turn_outputs(other["value"], turn_results),
        "output": _turn_inputs(other["output"], turn_results),
    }


def match(similarity: Array) -> Array:
    """Pair each row of similarity [n, n] with a column of its own: the column of each row, [n].

    Greedy: the most alike pair is taken first, then the most alike of what is left. Pairs that prefer each other are
    taken at once, which gives the same pairs. Example: [[9, 8], [7, 1]] gives [0, 1].
    """
    columns = np.empty(len(similarity), np.int64)
    left = right = np.arange(len(similarity))
    while len(left):
        rest = similarity[np.ix_(left, right)]
        best = rest.argmax(1)
        mutual = rest.argmax(0)[best] == np.arange(len(left))
        columns[left[mutual]] = right[best[mutual]]
        left, right = left[~mutual], np.delete(right, best[mutual])
    return columns


def _overlaps(left: Array, right: Array, metric: Array | None, heads: int) -> Array:
    """How the channels of every pair of heads overlap, [heads, heads, head_dim, head_dim].

    It is leftᵀ metric right, divided by the norms of both heads. left, right [width, heads * head_dim]; metric
    [width, width], None for the identity.
    """
    measured = [w if metric is None else metric @ w for w in (left, right)]
    blocks = (left.T @ measured[1]).reshape(heads, -1, heads, right.shape[1] // heads).transpose(0, 2, 1, 3)
    squares = [(w * m).reshape(len(w), heads, -1).sum((0, 2)) for w, m in zip((left, right), measured, strict=True)]
    overlaps: Array = blocks / np.sqrt(np.maximum(np.outer(*squares), 1e-30))[:, :, None, None]
    return overlaps


def _turn_heads(turns: Array, order: Array) -> Turn:
    """Head order[i] takes place i, times turns[i, order[i]] transposed; turns [heads, heads, head_dim, head_dim]."""
    heads, head_dim = len(order), turns.shape[2]
    matrix = np.zeros((heads, head_dim, heads, head_dim), turns.dtype)
    for i, j in enumerate(order):
        matrix[j, :, i, :] = turns[i, j].T
    return lambda values: values @ matrix.reshape(heads * head_dim, -1)


def _turn_outputs(dense: Dense, turn: Turn) -> Dense:
    return replace(dense, weight=turn(dense.weight), bias=None if dense.bias is None else turn(dense.bias))


def _turn_inputs(dense: Dense, turn: Turn) -> Dense:
    return replace(
        dense,
        weight=turn(dense.weight.T).T,
        mean=turn(dense.mean),
        covariance=turn(turn(dense.covariance).T),
        rows=turn(dense.rows),
    )
