"""Heads and neurons of one layer in the order of another's: found where there is one, and never another function."""

from collections.abc import Mapping

import numpy as np
from test_sharing_fit import dense

from onnxslim_bert.arrays import Array
from onnxslim_bert.rewriting.weights.sharing_fit import Dense
from onnxslim_bert.rewriting.weights.sharing_order import align, match

HIDDEN, HEADS, HEAD_DIM, NEURONS = 7, 3, 5, 11
SHAPES = {
    **dict.fromkeys(("query", "key", "value"), (HIDDEN, HEADS * HEAD_DIM)),
    "output": (HEADS * HEAD_DIM, HIDDEN),
    "up": (HIDDEN, NEURONS),
    "down": (NEURONS, HIDDEN),
}


def layer(seed: int) -> dict[str, Dense]:
    return {role: dense(shape, seed + i)[0] for i, (role, shape) in enumerate(SHAPES.items())}


def test_pairs_are_matched_most_alike_first():
    similarity = np.array([[9, 8, 1], [10, 2, 3], [4, 7, 5]])
    assert match(similarity).tolist() == [1, 0, 2]


def test_equal_similarities_are_matched_too():
    assert sorted(match(np.zeros((5, 5))).tolist()) == [0, 1, 2, 3, 4]


def shuffled(made: Mapping[str, Dense]) -> dict[str, Dense]:
    """The same layer with other places for its neurons and heads, and other axes in each head."""
    rng = np.random.default_rng(8)
    neurons = np.eye(NEURONS)[rng.permutation(NEURONS)]
    turns = []
    for _ in range(2):
        blocks = np.zeros((HEADS, HEAD_DIM, HEADS, HEAD_DIM))
        for old, new in enumerate((1, 2, 0)):
            blocks[old, :, new] = np.linalg.qr(rng.normal(size=(HEAD_DIM, HEAD_DIM)))[0]
        turns.append(blocks.reshape(HEADS * HEAD_DIM, -1))
    writes = {"query": turns[0], "key": turns[0], "value": turns[1], "up": neurons}
    reads = {"output": turns[1], "down": neurons}
    result = {}
    for role, d in made.items():
        w = writes.get(role, np.eye(d.weight.shape[1]))
        r = reads.get(role, np.eye(d.weight.shape[0]))
        result[role] = Dense(r.T @ d.weight @ w, d.bias @ w, d.mean @ r, r.T @ d.covariance @ r, d.rows @ r)
    return result


def test_a_shuffled_layer_is_put_back():
    """Neurons and heads in other places, heads turned: the first layer's own matrices, biases and moments return."""
    first = layer(3)
    aligned = align(first, shuffled(first), HEADS)
    assert list(aligned) == list(first)
    for role, made in first.items():
        for name in ("weight", "bias", "mean", "covariance", "rows"):
            np.testing.assert_allclose(
                getattr(aligned[role], name), getattr(made, name), atol=2e-4, err_msg=f"{role} {name}"
            )


def test_only_the_given_roles_are_aligned():
    first, other = ({role: made for role, made in layer(seed).items() if role in ("up", "down")} for seed in (3, 9))
    assert list(align(first, other, HEADS)) == ["up", "down"]


def computed(made: Mapping[str, Dense], x: Array) -> Array:
    """What the layer's attention and its feed-forward give for x [tokens, HIDDEN]."""
    query, key, value = (
        (x @ made[role].weight + made[role].bias).reshape(-1, HEADS, HEAD_DIM).transpose(1, 0, 2)
        for role in ("query", "key", "value")
    )
    scores = np.exp(query @ key.transpose(0, 2, 1) / 9)
    context = (scores / scores.sum(-1, keepdims=True)) @ value
    attended = context.transpose(1, 0, 2).reshape(len(x), -1) @ made["output"].weight + made["output"].bias
    fed = np.tanh(x @ made["up"].weight + made["up"].bias) @ made["down"].weight + made["down"].bias
    return np.stack([attended, fed])


def test_an_aligned_layer_computes_what_it_did():
    """Another layer altogether, in the order of the first."""
    first, other = layer(3), layer(40)
    x = np.random.default_rng(5).normal(size=(6, HIDDEN))
    aligned = align(first, other, HEADS)
    assert not np.allclose(aligned["up"].weight, other["up"].weight)
    np.testing.assert_allclose(computed(aligned, x), computed(other, x), atol=2e-4)
