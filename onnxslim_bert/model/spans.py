"""Where each layer of an encoder begins and ends, and taking one out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import is_output, redirect
from onnxslim_bert.graph.probe import constant, nodes_between, producer, read_by
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.norm_form import find_norms
from onnxslim_bert.model.onnx_model import Model

SELECTORS = ("Slice", "Reshape", "Gather")  # with which `first-token` takes position 0, after `unpad` too
NORMS = ("LayerNormalization", "ReduceMean")


@dataclass(frozen=True)
class Span:
    """Where one layer begins and ends: names of tensors [batch, seq, hidden] of the residual stream.

    entry: the state that the layer reads; its position 0 where the layer computes no other.
    ffn_residual: what the feed-forward's result is added to, alone or with that of the attention beside it.
    ffn_sum: that sum.
    exit: the state for the next layer, which is ffn_sum (pre-norm) or its norm (post-norm).
    """

    index: int
    entry: str
    ffn_residual: str
    ffn_sum: str
    exit: str


def find_spans(model: Model) -> list[Span]:
    """The span of every layer, first to last.

    Whichever exporter wrote the graph, what a layer adds to its result is the state that it read. Raises PassError when
    a layer has no such sums, or when anything but the next layer depends on what it computes.
    """
    layers = model.encoder.layers
    attention = [_residual_sum(model, layer, layer.output) for layer in layers]
    ffn = [_residual_sum(model, layer, layer.down) for layer in layers]
    states = [_whole(layer, entry) for layer, (_, entry) in zip(layers, attention, strict=True)]
    states.append(_last_exit(model, layers[-1], attention[-1][1], ffn[-1][0]))
    _check_chain(model, states)
    return [
        Span(layer.index, entry.name, residual.name, total.name, leaves.name)
        for layer, (_, entry), (total, residual), leaves in zip(layers, attention, ffn, states[1:], strict=True)
    ]


def remove_layer(model: Model, span: Span) -> None:
    """Take one layer out of the graph: the nodes that read its exit read its entry instead."""
    tensors = model.graph.tensors()
    redirect(model.graph, tensors[span.exit], tensors[span.entry])
    model.changed()


def _residual_sum(model: Model, layer: Layer, linear: Linear | None) -> tuple[gs.Tensor, gs.Tensor]:
    """The sum that adds the result of a dense layer to the stream, and the stream before it.

    Where attention and feed-forward stand beside each other, the result may be their sum.
    """
    if linear is None:
        raise PassError(f"layer {layer.index} has no plain feed-forward, so where it ends is not known")
    result = model.graph.tensors()[linear.result]
    beside = {each.result for each in layer.linears.values()}
    while len(result.outputs) == 1 and (node := result.outputs[0]).op in ("Add", "Sum"):
        others = [tensor for tensor in node.inputs if tensor is not result]
        if len(others) > 1:  # channels that are multiplied apart (`split-outliers`) belong to the result
            others = [tensor for tensor in others if not _is_product(tensor)]
        if len(others) != 1 or constant(others[0]) is not None:
            break
        if others[0].name not in beside:
            return node.outputs[0], others[0]
        result = node.outputs[0]
    raise PassError(f"layer {layer.index}: the result of node {linear.node!r} is not simply added to the stream")


def _is_product(tensor: gs.Tensor) -> bool:
    """Whether it is a product with a constant matrix."""
    node = producer(tensor)
    return node is not None and node.op == "MatMul" and constant(node.inputs[1]) is not None


def _whole(layer: Layer, entry: gs.Tensor) -> gs.Tensor:
    """The state of all tokens of which `entry` is position 0."""
    while layer.first_token and (node := producer(entry)) is not None and node.op in SELECTORS:
        entry = node.inputs[0]
    return entry


def _last_exit(model: Model, last: Layer, entry: gs.Tensor, total: gs.Tensor) -> gs.Tensor:
    """`total`, the last residual sum, or its norm where norms follow sums."""
    query = model.graph.tensors()[last.query.source]
    if any(node.op in NORMS for node in nodes_between([entry], query)):
        return total
    norm = next((node.outputs[0] for node in total.outputs if node.op == "LayerNormalization"), None)
    norm = norm or next((form.target for form in find_norms(model.graph) if form.source is total), None)
    if norm is None:
        raise PassError(f"layer {last.index}: no norm after its last residual sum {total.name!r}")
    return norm


def _check_chain(model: Model, states: Sequence[gs.Tensor]) -> None:
    """Raise PassError when more than the next layer depends on a layer. states: before, between and behind layers."""
    inside: list[dict[int, gs.Node]] = []
    for before, after in pairwise(states):
        values, nodes = {id(before)}, dict[int, gs.Node]()
        for node in nodes_between([before], after):
            if _reads(node, values):
                nodes[id(node)] = node
                values |= {id(tensor) for tensor in node.outputs}
        inside.append(nodes)
    for index, nodes in enumerate(inside):
        is_last = index == len(inside) - 1
        tensors = [t for node in nodes.values() for t in node.outputs if not (is_last and t is states[-1])]
        if given := [tensor for tensor in tensors if is_output(model.graph, tensor)]:
            raise PassError(f"layer {index}: its {given[0].name!r} is an output of the model, so the layer cannot go")
        values = {id(tensor) for tensor in tensors}
        allowed = nodes if is_last else nodes | inside[index + 1]
        other = next((n for n in model.graph.nodes if id(n) not in allowed and _reads(n, values)), None)
        if other is not None:
            raise PassError(f"layer {index}: node {other.name!r} ({other.op}) outside the next layer reads it too")


def _reads(node: gs.Node, values: set[int]) -> bool:
    """Whether `node` depends on one of these tensors by more than its shape."""
    return node.op != "Shape" and any(id(tensor) in values for tensor in read_by(node))
