"""Find int8 layers that CPUs with AVX2 or AVX-512, but without VNNI, compute wrongly, because sums leave 16 bits.

Their instruction VPMADDUBSW adds the products of inputs 2i and 2i+1 in 16 bits and cuts a sum off at -32,768 or 32,767;
only after that come 32 bits (MLAS, onnxruntime/core/mlas/lib/x86_64/QgemmU8X8KernelAvx2.S in
https://github.com/microsoft/onnxruntime). Example: 255 * 100 + 255 * 90 = 48,450 becomes 32,767. Here the same is
computed on any machine, bit for bit.

Two remedies. In the file: `quantize-static{reduce-range=true}`, as fast as before. In the session: the option
session.x64quantprecision=1, with which ONNX Runtime makes uint8 of the weights and widens both operands first
(onnxruntime/core/optimizer/qdq_transformer/avx2_weight_s8_to_u8.cc): exact, slower, and no file can ask for it.
"""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.linear import Linear, is_linear, read_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.int8.quantizers import UNSIGNED_LEVELS, activation_quantizer
from onnxslim_bert.rewriting.trials import Trials

LOWEST, HIGHEST = -(1 << 15), (1 << 15) - 1
SEEN = 64  # tokens that every layer is measured on
# inputs that hold scale and zero point of the activations and the scales of the weights; None where none does
PARAMETERS: dict[str, tuple[int | None, ...]] = {
    "MatMulIntegerToFloat": (2, 4, 3),
    "DynamicQuantizeMatMul": (None, None, 2),
    "MatMulInteger": (None, None, None),
}


@dataclass(frozen=True)
class Saturation:
    """What a CPU that adds pairs of products in 16 bits makes of one int8 layer.

    node: the layer's name. pairs: how many pairs of neighbouring weights it has, over all outputs. possible: how many
    of them saturate with some activations. seen: the share of all pairs' sums that did so on the rows. loss:
    |saturated - exact| / |exact| of the layer's product on the rows.
    """

    node: str
    pairs: int
    possible: int
    seen: float
    loss: float


def find_saturation(model: Model, trials: Trials) -> list[Saturation]:
    """Every dense layer of `model` that multiplies uint8 by int8, on SEEN tokens of the held-back rows.

    Where `possible` is 0 in all of them, nothing saturates whatever the rows. Empty when no layer multiplies so.
    """
    nodes = {node.name: node for node in model.graph.nodes}
    linears = [read_linear(node) for node in model.graph.nodes if is_linear(node)]
    found = {
        linear: parameters
        for linear in linears
        if model.array(linear.weight).dtype == np.int8
        and (parameters := _parameters(nodes[linear.node])) is not None
        and (parameters[1] is None or parameters[1].dtype == np.uint8)
    }
    wants = [Want(linear.source, "sample") for linear in found]
    samples = trials.collect(model, wants, "looking for saturation", held_back=True)
    few = [some[:: max(len(some) // SEEN, 1)][:SEEN] for some in (samples[want] for want in wants)]
    return [_measure(model, x, found[x], tokens) for x, tokens in zip(found, few, strict=True)]


def multiplies_integers(model: Model) -> bool:
    """Whether a node of the graph multiplies integers."""
    products = [node for node in model.graph.nodes if node.op in {*PARAMETERS, "MatMul", "Gemm"}]
    return any(_parameters(node) is not None for node in products)


def can_saturate(weight: Array) -> Array:
    """Which pairs saturate with some activations, bool [d_in / 2, d_out]; weight: int8 [d_in, d_out]."""
    highest, lowest = (UNSIGNED_LEVELS * bound(_pairs(weight), 0).sum(1) for bound in (np.maximum, np.minimum))
    saturates: Array = (highest > HIGHEST) | (lowest < LOWEST)
    return saturates


def lost_in_pairs(levels: Array, weight: Array, risky: Array) -> tuple[Array, int]:
    """What saturation takes off levels @ weight, int32 [n, d_out], and how many sums of pairs saturate.

    levels: uint8 [n, d_in]; weight: int8 [d_in, d_out]; risky: `can_saturate(weight)`. Only rows count whose two
    levels can leave 16 bits with the largest weights. Sums of two products are whole numbers that float32 holds.
    """
    lost = np.zeros((len(levels), weight.shape[1]), np.int32)
    pairs, inputs = _pairs(weight).astype(np.float32), _pairs(levels.T)
    large = inputs.sum(1) * -np.iinfo(np.int8).min > HIGHEST
    count = 0
    for i in np.flatnonzero(risky.any(1)):
        columns, rows = np.flatnonzero(risky[i]), np.flatnonzero(large[i])
        sums = inputs[i][:, rows].T.astype(np.float32) @ pairs[i][:, columns]
        over = (sums - np.clip(sums, LOWEST, HIGHEST)).astype(np.int32)
        lost[np.ix_(rows, columns)] += over
        count += int(np.count_nonzero(over))
    return lost, count


def _measure(model: Model, linear: Linear, parameters: tuple[Array | None, ...], rows: Array) -> Saturation:
    weight = model.array(linear.weight).T if linear.trans_b else model.array(linear.weight)
    scale, zero_point, weight_scales = parameters
    if scale is None or zero_point is None:  # found when the model runs
        scale, zero_point = activation_quantizer(min(float(rows.min()), 0.0), max(float(rows.max()), 0.0))
    levels = np.clip(np.rint(rows / scale) + float(zero_point), 0, UNSIGNED_LEVELS)
    possible = can_saturate(weight)
    lost, count = lost_in_pairs(levels.astype(np.uint8), weight, possible)
    exact = (levels - np.float32(zero_point)).astype(np.float32) @ weight.astype(np.float32)
    scales = np.ones(1) if weight_scales is None else weight_scales
    loss = np.linalg.norm(lost * scales) / max(float(np.linalg.norm(exact * scales)), 1e-30)
    share = count / max(len(rows) * possible.size, 1)
    return Saturation(linear.node, possible.size, int(possible.sum()), share, float(loss))


def _parameters(node: gs.Node) -> tuple[Array | None, ...] | None:
    """Scale and zero point of the activations and scales of the weights, as far as the graph fixes them.

    Each is None where the graph does not fix it. The result is None when `node` does not multiply integers, for
    instance when only its weights are stored as integers.
    """
    restored = [producer(tensor) for tensor in node.inputs[:2]]
    if node.op in PARAMETERS:
        tensors = [node.inputs[i] if i is not None else None for i in PARAMETERS[node.op]]
    elif restored[0] is not None and restored[1] is not None and restored[0].op == "DequantizeLinear":
        tensors = [*restored[0].inputs[1:3], restored[1].inputs[1]]
    else:
        return None
    return tuple(constant(tensor) if tensor is not None else None for tensor in tensors)


def _pairs(values: Array) -> Array:
    """[d_in, any] -> int32 [d_in / 2, 2, any]; an odd last input is paired with zeros."""
    padded = np.pad(values.astype(np.int32), ((0, len(values) % 2), (0, 0)))
    return padded.reshape(-1, 2, values.shape[1])
