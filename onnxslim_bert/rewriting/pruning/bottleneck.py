"""Make a layer of an encoder narrower than the stream that it reads and adds to; nothing is decided here."""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import constant, nodes_between
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.norm_form import ELEMENTARY
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.spans import Span
from onnxslim_bert.rewriting.pruning.stream_refit import Place
from onnxslim_bert.rewriting.pruning.surgery import matrix, set_dense

NORMS = ELEMENTARY | {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "Identity"}
ATTENTION, FEED_FORWARD = ("query", "key", "value"), ("gate", "up")


def write_bottleneck(model: Model, layer: Layer, span: Span, kept: Array) -> list[Place]:
    """Let `layer` work on the channels `kept` [width] of the stream, which stays as wide as it is around it.

    A matrix in front of the layer takes these channels out, another one behind it puts the layer's result back; what
    the stream was is added, and the norm with which the layer ended, if it did, follows once more. In between, matrices
    and norms keep those rows, columns and elements. Call `model.changed()` after the last layer.

    Returns the places at which all of this can be refitted, first to last. Raises PassError, with nothing changed,
    where anything but a norm lies between the layer's parts.
    """
    tensors, build = model.graph.tensors(), Builder(model.graph, f"layer.{layer.index}/bottleneck")
    stream = np.eye(layer.query.d_in)
    entry, total, end = (tensors[name] for name in (span.entry, span.ffn_sum, span.exit))
    linears = layer.linears
    behind_attention = tensors[linears["output"].result].outputs[0].outputs[0]
    _check_in_turn(layer, behind_attention, tensors[linears["up"].source])
    last_norm = _norm(layer, total, end)
    norms = [
        *_norm(layer, entry, tensors[layer.query.source]),
        *_norm(layer, behind_attention, tensors[linears["up"].source]),
        *last_norm,
    ]
    again = [(node, list(node.inputs), list(node.outputs)) for node in last_norm]
    inside = nodes_between([entry], end)
    narrow, _ = _dense(build.under(f"{build.prefix}/in"), entry, stream[:, kept])
    for node in inside:
        node.inputs = [narrow if tensor is entry else tensor for tensor in node.inputs]
    for node in norms:
        node.inputs = [_cut(build, tensor, len(stream), kept) for tensor in node.inputs]
    for role, linear in linears.items():
        weight, bias = matrix(model, linear), None if linear.bias is None else model.array(linear.bias)
        if role in ("output", "down"):
            set_dense(model, build, linear, weight[:, kept], None if bias is None else bias[kept])
        else:
            set_dense(model, build, linear, weight[kept], None)

    result = gs.Variable(build.unique(f"{end.name}/narrow"))
    writer = end.inputs[0]
    writer.outputs[next(i for i, tensor in enumerate(writer.outputs) if tensor is end)] = result
    back, restored = _dense(build.under(f"{build.prefix}/out"), result, stream[kept])
    wide = {id(total): build.node("Add", "sum", [entry, back])}
    for node, inputs, outputs in again:
        given = [wide.get(id(tensor), tensor) for tensor in inputs]
        made = build.nodes(node.op, node.name, given, len(outputs), node.domain or "", **node.attrs)
        wide |= {id(old): new for old, new in zip(outputs, made, strict=True)}
    last = wide[id(end)].inputs[0]
    last.outputs = [end if tensor is wide[id(end)] else tensor for tensor in last.outputs]

    places = [
        Place(_together(linears, ATTENTION), layer.query.source, kept=kept),
        Place((layer.output.node,), behind_attention.name, narrow.name, kept),
        Place(_together(linears, FEED_FORWARD), linears["up"].source, kept=kept),
        Place((linears["down"].node,), span.ffn_sum, span.ffn_residual, kept),
    ]
    biased = {linear.node for linear in linears.values() if linear.bias is not None}
    behind = Place((restored,), span.ffn_sum, span.entry, normed=bool(last_norm))
    return [*(place for place in places if biased >= {*place.nodes}), behind]


def _check_in_turn(layer: Layer, attended: gs.Tensor, read: gs.Tensor) -> None:
    """Raise PassError unless what the feed-forward reads is computed from `attended`, the sum behind the attention."""
    if read is not attended and not any(t is attended for node in nodes_between([attended], read) for t in node.inputs):
        beside = "attention and feed-forward stand beside each other, both reading the stream"
        raise PassError(f"bottleneck: layer {layer.index}: {beside}; needed one behind the other")


def _dense(build: Builder, source: gs.Tensor, weight: Array) -> tuple[gs.Tensor, str]:
    """`source` times `weight` [d_in, d_out], plus a bias of zeros; and the name of the product's node."""
    product = build.node("MatMul", "product", [source, build.constant("weight", weight.astype(np.float32))])
    bias = build.constant("bias", np.zeros(weight.shape[1], np.float32))
    return build.node("Add", "biased", [product, bias]), str(product.inputs[0].name)


def _norm(layer: Layer, source: gs.Tensor, target: gs.Tensor) -> Sequence[gs.Node]:
    """The nodes of the norm from `source` to `target`, none where they are one."""
    found = [] if source is target else nodes_between([source], target)
    other = next((node for node in found if node.op not in NORMS), None)
    if other is not None:
        raise PassError(
            f"bottleneck: layer {layer.index}: node {other.name!r} ({other.op}) lies between its parts; needed a norm"
        )
    return found


def _cut(build: Builder, tensor: gs.Tensor, width: int, kept: Array) -> gs.Tensor:
    values = constant(tensor)
    return tensor if values is None or values.shape != (width,) else build.constant(tensor.name, values[kept])


def _together(linears: dict[str, Linear], roles: Sequence[str]) -> tuple[str, ...]:
    return tuple(linears[role].node for role in roles if role in linears)
