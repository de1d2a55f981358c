"""Whether a graph is one step of a decoder, which keeps keys and values of earlier tokens."""

import onnx_graphsurgeon as gs

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.probe import constant, producer

VIEWS = frozenset(["Transpose", "Reshape", "Identity", "Cast", "Squeeze", "Unsqueeze", "Gather", "Split", "Slice"])
JOINS = frozenset(["Concat", "ScatterND", "ScatterElements", "TensorScatter"])
PAST = {"Attention": 4, "MultiHeadAttention": 6, "GroupQueryAttention": 3, "DecoderMaskedMultiHeadAttention": 5}
RANK = 4  # [batch, heads, seq, head_dim]


def check_no_cache(graph: gs.Graph) -> None:
    """Raise ModelError for a decoder that keeps keys and values of earlier tokens."""
    if (cache := cache_of(graph)) is not None:
        raise ModelError(f"{cache!r} keeps keys and values of earlier tokens: a decoder with a cache, not an encoder")


def cache_of(graph: gs.Graph) -> str | None:
    """The input or output of `graph` that holds keys or values of earlier tokens; None when there is none."""
    for tensor in graph.inputs:
        if tensor.shape is not None and len(tensor.shape) >= RANK and _is_joined(tensor):
            return str(tensor.name)
    for tensor in graph.outputs:
        if any(
            node.op == "MatMul" and constant(node.inputs[0]) is None and _is_operand(tensor, node)
            for node in graph.nodes
        ):
            return str(tensor.name)
    return None


def _is_joined(tensor: gs.Tensor) -> bool:
    """Whether what is computed here is put beside `tensor`."""
    front, seen = [tensor], set[int]()
    while front:
        current = front.pop()
        for node in current.outputs:
            place = next((i for i, other in enumerate(node.inputs) if other is current), 0)
            if node.op in JOINS or place >= PAST.get(node.op, 99):
                return True
            if node.op in VIEWS and id(node) not in seen:
                seen.add(id(node))
                front.extend(node.outputs)
    return False


def _is_operand(tensor: gs.Tensor, product: gs.Node) -> bool:
    """Whether `tensor`, or a view of it, is what attention scores or probabilities are multiplied with."""
    operand = product.inputs[1]
    if constant(operand) is not None or not _meets_softmax(product):
        return False
    while operand is not tensor:
        node = producer(operand)
        if node is None or node.op not in VIEWS:
            return False
        operand = node.inputs[0]
    return True


def _meets_softmax(product: gs.Node) -> bool:
    """Whether a Softmax gives the left operand of `product`, or reads what it makes, scaled and masked perhaps."""
    above = producer(product.inputs[0])
    if above is not None and above.op == "Softmax":
        return True
    front = list(product.outputs)
    for _ in range(4):
        readers = [node for tensor in front for node in tensor.outputs]
        if any(node.op == "Softmax" for node in readers):
            return True
        front = [t for node in readers if node.op in ("Add", "Mul", "Div", "Where", "Cast") for t in node.outputs]
    return False
