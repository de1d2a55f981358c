"""Where attention is in a graph: Softmax between two products of activations, or a fused attention node.

The query and key lie upstream of the scores, the value beside the probabilities. Nothing is read from names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.attention_form import FUSED_ATTENTION

SCORES = frozenset(
    [
        "Tanh",
        "Add",
        "Sub",
        "Sum",
        "Mul",
        "Div",
        "Where",
        "Cast",
        "Reshape",
        "Unsqueeze",
        "Squeeze",
        "Identity",
        "QuantizeLinear",
        "DequantizeLinear",
    ]
)
PROBABILITIES = frozenset(
    ["Where", "Cast", "Reshape", "Identity", "Dropout", "IsNaN", "Mul", "QuantizeLinear", "DequantizeLinear"]
)
FIRST_INPUT_ONLY = (
    "Reshape",
    "Expand",
    "Tile",
    "Unsqueeze",
    "Squeeze",
    "Gather",
    "Slice",
    "Split",
    "RotaryEmbedding",
)  # the others are shapes, axes or positions
# Operators into which other tools fuse parts of an encoder, and that are not taken apart here.
UNREAD = frozenset(
    ["QAttention", "QEmbedLayerNormalization", "QLinearMatMul", "QLinearSoftmax", "MatMulNBits", "PackedAttention"]
)


@dataclass(frozen=True)
class Core:
    """The heart of one attention: the operands of the scores and the tensor that leaves it."""

    node: gs.Node
    query: gs.Tensor
    key: gs.Tensor
    value: gs.Tensor
    result: gs.Tensor
    heads: int | None


def cores_of(node: gs.Node) -> Iterator[Core]:
    """The attention whose Softmax or fused node is `node`; none for any other node."""
    if node.op == "If" and (inner := _branch_attention(node)) is not None:  # written by `skip-mask`
        query, key, value = inner.inputs[:3]
        yield Core(node, query, key, value, node.outputs[0], _heads(inner))
    elif node.op in FUSED_ATTENTION and len(node.inputs) >= 3:
        query, key, value = node.inputs[:3]
        yield Core(node, query, key, value, node.outputs[0], _heads(node))
    elif node.op == "Softmax":
        scores = _up_to_product(node.inputs[0])
        context = _down_to_product(node.outputs[0])
        if scores is not None and context is not None:
            product, value = context
            yield Core(node, scores.inputs[0], scores.inputs[1], value, product.outputs[0], None)


def _heads(node: gs.Node) -> int | None:
    heads: int | None = node.attrs.get("num_heads") or node.attrs.get("q_num_heads")
    return heads


def _branch_attention(node: gs.Node) -> gs.Node | None:
    branches = [value for value in node.attrs.values() if isinstance(value, gs.Graph)]
    return next((inner for branch in branches for inner in branch.nodes if inner.op in FUSED_ATTENTION), None)


def _up_to_product(tensor: gs.Tensor) -> gs.Node | None:
    """The MatMul of two activations from which the attention scores come."""
    for node in upstream(tensor, SCORES):
        if node.op in ("MatMul", "FusedMatMul") and not any(constant(t) is not None for t in node.inputs):
            return node
    return None


def _down_to_product(tensor: gs.Tensor) -> tuple[gs.Node, gs.Tensor] | None:
    """The MatMul of probabilities and values, and its value operand."""
    front = [tensor]
    while front:
        current = front.pop(0)
        for node in current.outputs:
            if node.op in ("MatMul", "FusedMatMul") and node.inputs[0] is current and constant(node.inputs[1]) is None:
                return node, node.inputs[1]
            if node.op in PROBABILITIES:
                front.extend(node.outputs)
    return None


def upstream(tensor: gs.Tensor, through: frozenset[str]) -> Iterator[gs.Node]:
    """Nodes above `tensor`, nearest first, passing only `through` operators."""
    front, seen = [tensor], set[int]()
    while front:
        node = producer(front.pop(0))
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if node.op in through:
            front.extend(node.inputs[:1] if node.op in FIRST_INPUT_ONLY else node.inputs)


def unread(operators: Mapping[str, int]) -> str:
    """What to add to a reason why no encoder is read, for the `operators` of a graph and how many there are of each."""
    found = [f"{count} {operator}" for operator, count in operators.items() if operator in UNREAD]
    return f"; {', '.join(found)} are not read: start from the file before them" if found else ""


def why_no_attention(graph: gs.Graph) -> str:
    """What `graph` has in the place of self-attention, for the message that refuses it."""
    counts: dict[str, int] = {}
    for node in graph.nodes:
        counts[node.op] = counts.get(node.op, 0) + 1
    softmax = counts.get("Softmax", 0)
    common: Sequence[Any] = sorted(counts.items(), key=lambda item: -item[1])[:4]
    listing = ", ".join(f"{number} {op}" for op, number in common)
    found = f"{softmax} Softmax, none between two MatMuls of activations" if softmax else "no Softmax"
    if sinks := sum(node.op == "Softmax" and _has_sink(node) for node in graph.nodes):
        found = f"{sinks} Softmax over scores and a sink, a number beside them: only int8 passes take such attention"
    return f"not a transformer encoder: no self-attention ({found}); the graph has {listing}"


def _has_sink(softmax: gs.Node) -> bool:
    """Whether scores of query and key are joined with something else before `softmax`.

    Xiao et al. 2023, https://arxiv.org/abs/2309.17453
    """
    joined = [node for node in upstream(softmax.inputs[0], SCORES) if node.op == "Concat"]
    return any(_up_to_product(tensor) is not None for node in joined for tensor in node.inputs)
