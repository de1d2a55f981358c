"""Write into a graph how much attention each token receives, without the matrix of all pairs of tokens."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.write_attention import HIDDEN


def emit_received_attention(
    build: Builder, roles: Sequence[gs.Tensor], width: int, heads: int, scale: float, mask: gs.Tensor
) -> gs.Tensor:
    """The attention that each token receives, [batch, seq]; zero where a token is hidden.

    It is the sum over heads of softmax(scale * mean(query) @ key.T) * |value|, with the mean over a text's tokens.
    roles: query, key and value [batch, seq, width]. mask: [batch, seq], zero where a token is hidden.

    PoWER-BERT ranks tokens by the column sums of softmax(scale * query @ key.T), for which every query meets every key.
    Here one mean query stands for all queries of a text. The attention is multiplied by the length of the value vector,
    because a token may be looked at and still give nothing (Kobayashi et al. 2020, https://arxiv.org/abs/2004.10102).
    """
    query, key, value = roles
    apart = build.constant("apart", np.array([0, 0, heads, width // heads], np.int64))

    def by_head(name: str, left: gs.Tensor, right: gs.Tensor) -> gs.Tensor:
        """The inner products [batch, seq, heads]."""
        products = build.node("Reshape", name, [build.node("Mul", name, [left, right]), apart])
        return build.node("ReduceSum", name, [products, axis(build, 3)], keepdims=0)

    real = build.node("Cast", "real", [mask], to=onnx.TensorProto.FLOAT)
    share = build.node("Div", "share", [real, build.node("ReduceSum", "length", [real, axis(build, 1)])])
    mean = build.node("MatMul", "mean", [build.node("Unsqueeze", "share", [share, axis(build, 1)]), query])
    scores = by_head("scores", key, build.node("Mul", "mean", [mean, _number(build, "scale", scale)]))
    hidden = build.node("Sub", "hidden", [_number(build, "one", 1), real])
    bias = build.node("Mul", "bias", [hidden, _number(build, "low", HIDDEN)])
    masked = build.node("Add", "masked", [scores, build.node("Unsqueeze", "bias", [bias, axis(build, 2)])])
    weights = build.node("Softmax", "weights", [masked], axis=1)
    taken = build.node("Mul", "taken", [weights, build.node("Sqrt", "norms", [by_head("norms", value, value)])])
    return build.node("ReduceSum", "received", [taken, axis(build, 2)], keepdims=0)


def axis(build: Builder, number: int) -> gs.Constant:
    """`number` in a list of one, as operators take axes, starts and ends."""
    return build.constant("axis", np.array([number], np.int64))


def _number(build: Builder, name: str, value: float) -> gs.Constant:
    return build.constant(name, np.array(value, np.float32))
