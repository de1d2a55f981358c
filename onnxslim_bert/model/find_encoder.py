"""Find the transformer encoder in a canonicalized graph, whichever exporter wrote it.

Attention is anchored on Softmax or a fused node (`attention_cores`): the dense layers above it are query, key and
value, the one below is the output, and the next ones are the feed-forward matrices (`feed_forward`). What the nodes
between them compute is proven by running them (`attention_form`). Nothing is read from names.
"""

import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_graphsurgeon as gs

from onnxslim_bert.errors import FaultError, ModelError, NoEncoderError, one_line
from onnxslim_bert.graph.probe import constant, nodes_between, producer
from onnxslim_bert.model.attention_cores import Core, cores_of, unread, upstream, why_no_attention
from onnxslim_bert.model.attention_form import DECODER, attention_form, is_causal, probe_shape
from onnxslim_bert.model.attention_region import region_between
from onnxslim_bert.model.decoder_cache import check_no_cache
from onnxslim_bert.model.embeddings import find_embeddings
from onnxslim_bert.model.encoder import Encoder, Layer
from onnxslim_bert.model.feed_forward import below, feed_forward
from onnxslim_bert.model.linear import Linear, is_linear, read_linear, read_product
from onnxslim_bert.model.soundness import why_unsound
from onnxslim_bert.model.token_masks import TokenMask, masks

VIEWS = frozenset(
    [
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Identity",
        "Cast",
        "Expand",
        "Tile",
        "Gather",
        "Mul",
        "Div",
        "Add",
        "Sum",
        "Sub",
        "Neg",
        "Concat",
        "Slice",
        "Split",
        "RotaryEmbedding",
        "QuantizeLinear",
        "DequantizeLinear",
    ]
)
NORMS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def find_encoder(graph: gs.Graph) -> Encoder:
    """The encoder in `graph`, which the pass `canonicalize` has prepared.

    Raises NoEncoderError when none is recognised, naming what was missing, for a decoder with a cache, and for a graph
    whose sizes or types fit nothing, which ONNX Runtime does not run either. FaultError where it does: what failed is
    ours. A decoder without a cache embeds texts as an encoder does: it is read, and its attention not proven.
    """
    try:
        return _find_encoder(graph)
    except ModelError as error:
        raise NoEncoderError(f"{error}{unread(Counter(node.op for node in graph.nodes))}") from error
    # sizes and types that fit no layer show only when regions are read and run, each in its own way
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if unsound := why_unsound(graph):
            raise NoEncoderError(f"the graph fits no encoder that is read here: {unsound}") from error
        place = next(reversed(traceback.extract_tb(error.__traceback__)))
        raise FaultError(
            f"a fault of onnxslim-bert, not of the model: its encoder was looked for, and {type(error).__name__} "
            f"({one_line(error)}) came up in {Path(place.filename).name}, line {place.lineno}; please report it"
        ) from error


def _find_encoder(graph: gs.Graph) -> Encoder:
    order, tensors = {id(node): i for i, node in enumerate(graph.nodes)}, graph.tensors()
    cores = [core for node in graph.nodes for core in cores_of(node)]
    if not cores:
        raise ModelError(why_no_attention(graph))
    check_no_cache(graph)
    hiding = masks(graph)
    try:
        later = [core.query for core in cores]
        layers = tuple(_layer(graph, tensors, i, core, order, hiding, later[i + 1 :]) for i, core in enumerate(cores))
    except ModelError as error:
        raise ModelError(DECODER) if is_causal(graph, cores[0].result) else error from None
    hidden = layers[0].query.d_in
    for layer in layers:
        if (layer.query.d_in, layer.output.d_out) != (hidden, hidden):
            raise ModelError(
                f"layer {layer.index}: width {layer.query.d_in} -> {layer.output.d_out} where layer 0 has {hidden}; "
                "an encoder keeps one width"
            )
    return Encoder(find_embeddings(graph, layers[0].query), layers, hidden, _head(graph, tensors, layers[-1]))


def _head(graph: gs.Graph, tensors: Mapping[str, gs.Tensor], last: Layer) -> tuple[Linear, ...]:
    front = list(tensors[(last.down or last.output).result].outputs)
    found: dict[int, gs.Node] = {}
    while front:
        node = front.pop()
        if id(node) not in found:
            found[id(node)] = node
            front.extend(reader for tensor in node.outputs for reader in tensor.outputs)
    return tuple(read_linear(node) for node in graph.nodes if id(node) in found and is_linear(node))


def _layer(
    graph: gs.Graph,
    tensors: Mapping[str, gs.Tensor],
    index: int,
    core: Core,
    order: dict[int, int],
    hiding: Sequence[TokenMask],
    later: Sequence[gs.Tensor],
) -> Layer:
    query, key, value = (
        _above(index, role, operand)
        for role, operand in (("query", core.query), ("key", core.key), ("value", core.value))
    )
    first_token = query.source != key.source and _is_first_of(tensors, query.source, key.source)
    if query.source != key.source and not first_token:
        raise ModelError(
            f"layer {index}: query and key read different tensors: cross-attention, or a convolution before one of them"
            "; needed one tensor for both"
        )
    if len({query.node, key.node, value.node}) < 3:
        raise ModelError(
            f"layer {index}: query, key and value are one packed matrix at node {query.node!r}; not supported"
        )
    output_node = below(core.result, order)
    if output_node is None:
        raise ModelError(f"layer {index}: no dense output after the attention at node {core.node.name!r}")
    output = read_product(output_node)
    heads, head_dim = _heads(graph, index, core, query)
    gate, up, down = feed_forward(tensors, query, output, order, later)
    form = attention_form(region_between(graph, tensors, (query, key, value), output, hiding, first_token), heads)
    proven, reason = (None, form) if isinstance(form, str) else (form, "")
    context = output.source
    return Layer(
        index, heads, head_dim, query, key, value, output, up, down, context, proven, reason, first_token, gate
    )


def _is_first_of(tensors: Mapping[str, gs.Tensor], query_source: str, key_source: str) -> bool:
    """Whether the query reads position 0 of what the key reads, a norm, a scale or quantizers between them aside."""
    node = producer(tensors[query_source])
    while node is not None and node.op in ("LayerNormalization", "Mul", "Clip", *QUANTIZERS):
        node = producer(node.inputs[0])
    if node is None or node.op != "Slice":
        return False
    bounds = [None if (value := constant(t)) is None else value.tolist() for t in node.inputs[1:4]]
    stream, key = node.inputs[0], tensors[key_source]
    while (
        (above := producer(stream)) is not None
        and above.op in ("Reshape", "Gather", *QUANTIZERS)
        and constant(above.inputs[0]) is None
    ):
        stream = above.inputs[0]  # padding that comes back
    between = nodes_between([stream], key)
    return bounds == [[0], [1], [1]] and (stream is key or any(t is stream for n in between for t in n.inputs))


def _above(index: int, role: str, operand: gs.Tensor) -> Linear:
    for node in upstream(operand, VIEWS):
        if is_linear(node):
            return read_product(node)
        if node.op in NORMS and (product := _normed(node)) is not None:
            return read_product(product)
    raise ModelError(f"layer {index}: no dense {role} above tensor {operand.name!r}")


def _normed(norm: gs.Node) -> gs.Node | None:
    """The dense node whose result `norm` normalises, in heads or as a whole; a norm of a residual sum has none."""
    tensor = norm.inputs[0]
    while (node := producer(tensor)) is not None and not is_linear(node):
        is_bias = node.op == "Add" and any(constant(other) is not None for other in node.inputs)
        if not is_bias and node.op not in ("Reshape", "Transpose", "Cast", "Gather", "Split", "Slice"):
            return None
        tensor = next(other for other in node.inputs if constant(other) is None)
    return node


def _heads(graph: gs.Graph, index: int, core: Core, query: Linear) -> tuple[int, int]:
    """The number of heads and their width: written in the graph, or the shape of the scores' left operand."""
    head_dim = query.d_out // core.heads if core.heads else _written_width(core.query)
    if head_dim is None or head_dim <= 0:
        head_dim = probe_shape(graph, query, core.query)[-1]
    if not head_dim or query.d_out % head_dim:
        raise ModelError(f"layer {index}: heads of width {head_dim} do not divide the query's width {query.d_out}")
    return query.d_out // head_dim, head_dim


def _written_width(operand: gs.Tensor) -> int | None:
    """The constant with which the Reshape to heads ends: [..., heads, head_dim]."""
    reshape = next((node for node in upstream(operand, VIEWS) if node.op == "Reshape"), None)
    shape = reshape.inputs[1] if reshape is not None else None
    while shape is not None and constant(shape) is None:
        node = producer(shape)
        if node is not None and node.op == "Constant" and (value := node.attrs.get("value")) is not None:
            return int(value.values.reshape(-1)[-1])  # as exporters write it, before `canonicalize`
        shape = node.inputs[-1] if node is not None and node.op == "Concat" else None
    return int(shape.values.reshape(-1)[-1]) if shape is not None else None
