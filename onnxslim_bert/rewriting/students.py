"""Small models that read a text's token vectors: by their mean, or with an LSTM from both ends."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.rewriting.weights.factors import principal_axes, project, weighted_moments

Reader = Callable[[Builder, gs.Tensor, gs.Tensor | None, int, int, np.random.Generator], tuple[gs.Tensor, int]]
"""Adds the nodes that make one vector of a text: of its token vectors [batch, seq, width], its mask [batch, seq] whose
zeros are padding (None: there is none), width, hidden, and a source of first weights. Returns the vector [batch, n]
and n.
"""


def first_vectors(table: Array, width: int) -> Array:
    """The rows of `table` [rows, hidden] on their principal axes, [rows, width], with a variance of 1 in the mean.

    Where the table has fewer columns than `width`, the others are 0.
    """
    mean, covariance = weighted_moments(table, np.ones(len(table)))
    variances, axes = principal_axes(covariance)
    vectors = project(table, mean, axes[:, :width]) / np.sqrt(max(float(variances[:width].mean()), 1e-30))
    return np.pad(vectors, ((0, 0), (0, width - vectors.shape[1]))).astype(np.float32)


def bag_of_vectors(
    build: Builder, rows: gs.Tensor, mask: gs.Tensor | None, width: int, hidden: int, rng: np.random.Generator
) -> tuple[gs.Tensor, int]:
    """The mean of the vectors of the tokens that the mask keeps; zero for a text without any."""
    tokens = build.constant("along_tokens", np.array([1], np.int64))
    if mask is None:
        ones = build.node("ReduceSum", "sum", [rows, tokens], keepdims=0)
        count = build.node("Gather", "length", [build.node("Shape", "shape", [rows]), tokens], axis=0)
        return build.node("Div", "mean", [ones, build.node("Cast", "count", [count], to=onnx.TensorProto.FLOAT)]), width
    real = build.node("Cast", "real", [mask], to=onnx.TensorProto.FLOAT)
    # a product with the mask as a row: faster than to multiply each vector and add up
    sums = build.node("MatMul", "sums", [build.node("Unsqueeze", "one_row", [real, tokens]), rows])
    total = build.node("Squeeze", "sum", [sums, tokens])
    count = build.node("ReduceSum", "count", [real, tokens], keepdims=1)
    least = build.node("Max", "at_least_one", [count, build.constant("one", np.array(1, np.float32))])
    return build.node("Div", "mean", [total, least]), width


def bidirectional_lstm(
    build: Builder, rows: gs.Tensor, mask: gs.Tensor | None, width: int, hidden: int, rng: np.random.Generator
) -> tuple[gs.Tensor, int]:
    """The last states of two LSTMs, one from each end of the text, side by side; hidden tokens are zero vectors.

    Each reads up to the last token that the mask keeps. https://onnx.ai/onnx/operators/onnx__LSTM.html
    """
    lengths = None
    if mask is not None:
        real = build.node("Cast", "real", [mask], to=onnx.TensorProto.FLOAT)
        apart = build.node("Unsqueeze", "apart", [real, build.constant("last", np.array([-1], np.int64))])
        rows = build.node("Mul", "kept", [rows, apart])
        lengths = _lengths(build, real)
    turned = build.node("Transpose", "by_token", [rows], perm=[1, 0, 2])
    weights = [
        build.constant("input_weights", _uniform(rng, (2, 4 * hidden, width), hidden)),
        build.constant("state_weights", _uniform(rng, (2, 4 * hidden, hidden), hidden)),
        build.constant("biases", _uniform(rng, (2, 8 * hidden), hidden)),
    ]
    _, last, _ = build.nodes(
        "LSTM", "lstm", [turned, *weights, lengths], 3, hidden_size=hidden, direction="bidirectional"
    )
    beside = build.node("Transpose", "by_text", [last], perm=[1, 0, 2])
    shape = build.constant("states_shape", np.array([0, 2 * hidden], np.int64))
    return build.node("Reshape", "states", [beside, shape]), 2 * hidden


def _lengths(build: Builder, real: gs.Tensor) -> gs.Tensor:
    """The place behind the last 1 of each row of `real` [batch, seq], at least 1: int32 [batch]."""
    one, zero = build.constant("one", np.array(1, np.float32)), build.constant("zero", np.array(0, np.float32))
    ones = build.node("Add", "ones", [build.node("Mul", "none", [real, zero]), one])
    numbers = build.node("CumSum", "numbers", [ones, build.constant("axis", np.array(1, np.int64))])
    reached = build.node("Mul", "reached", [numbers, real])
    first, axes = build.constant("first", np.array([1], np.int64)), build.constant("axes", np.array([1], np.int64))
    furthest, _ = build.nodes("TopK", "furthest", [reached, first], 2, axis=1)
    flat = build.node("Squeeze", "flat", [build.node("Max", "at_least_one", [furthest, one]), axes])
    return build.node("Cast", "lengths", [flat], to=onnx.TensorProto.INT32)


def dense(build: Builder, name: str, source: gs.Tensor, sizes: tuple[int, int], rng: np.random.Generator) -> gs.Tensor:
    """`source` [batch, sizes[0]] times a matrix, plus a bias: [batch, sizes[1]]."""
    weight = build.constant(f"{name}/weight", _uniform(rng, sizes, sizes[0]))
    bias = build.constant(f"{name}/bias", _uniform(rng, sizes[1:], sizes[0]))
    return build.node("Gemm", name, [source, weight, bias])


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> Array:
    """First weights between -1 / sqrt(fan_in) and 1 / sqrt(fan_in), as PyTorch draws them."""
    bound = fan_in**-0.5
    return rng.uniform(-bound, bound, shape).astype(np.float32)
