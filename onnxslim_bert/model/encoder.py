"""Find the transformer encoder in a canonicalized graph, whichever exporter wrote it.

Nothing is read from names. Attention is anchored on Softmax (or on a fused attention node): the query and key lie
upstream of the scores, the value and the output beside and below the probabilities, and the feed-forward matrices are
the next ones downstream. What the piece between them computes is proven by running it (`attention_form`).
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import FaultError, ModelError, NoEncoderError, one_line
from onnxslim_bert.graph.probe import constant, nodes_between, producer
from onnxslim_bert.model.attention_form import (
    DECODER,
    FUSED_ATTENTION,
    AttentionForm,
    Region,
    attention_form,
    is_causal,
    probe_shape,
)
from onnxslim_bert.model.decoder_cache import check_no_cache
from onnxslim_bert.model.embeddings import Embeddings, find_embeddings
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
        "QuantizeLinear",
        "DequantizeLinear",
    ]
)
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
    "Unsqueeze",
    "Squeeze",
    "Gather",
    "Slice",
    "Split",
)  # the others are shapes, axes or positions
NORMS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Layer:
    """One encoder layer. It holds names of tensors and nodes, not the nodes, so that a rewrite leaves it valid.

    query, key, value, output: the dense layers of the attention.
    up, down: those of the feed-forward, down(act(up(x))); None where none is recognised.
    gate: where neurons are gated, down(act(gate(x)) * up(x)); a neuron is then a column of both. Else None.
    context: the attention result that `output` reads, [batch, seq, heads * head_dim].
    form: what the nodes from query, key and value to context compute; None when that is not proven.
    reason: why it is not.
    first_token: query, output, feed-forward and norms work on position 0 only.
    """

    index: int
    heads: int
    head_dim: int
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    up: Linear | None
    down: Linear | None
    context: str
    form: AttentionForm | None
    reason: str = ""
    first_token: bool = False
    gate: Linear | None = None

    @property
    def groups(self) -> int:
        """How many units the heads consist of that do not depend on each other: heads that share a key are one."""
        return self.heads if self.key.d_out == self.query.d_out else max(1, self.key.d_out // self.head_dim)

    @property
    def linears(self) -> dict[str, Linear]:
        """The layer's dense matrices by role, in execution order."""
        roles = ("query", "key", "value", "output", "gate", "up", "down")
        return {role: linear for role in roles if (linear := getattr(self, role)) is not None}


@dataclass(frozen=True)
class Encoder:
    """A transformer encoder. hidden: width of the residual stream. head: the dense layers of the task behind it."""

    embeddings: Embeddings
    layers: tuple[Layer, ...]
    hidden: int
    head: tuple[Linear, ...] = ()

    @property
    def mask(self) -> str | None:
        """The tensor that says which tokens are real, a graph input or made of token ids; None where none is proven."""
        return next((layer.form.mask for layer in self.layers if layer.form is not None), None)


@dataclass(frozen=True)
class _Core:
    """The heart of one attention: the operands of the scores and the tensor that leaves it."""

    node: gs.Node
    query: gs.Tensor
    key: gs.Tensor
    value: gs.Tensor
    result: gs.Tensor
    heads: int | None


def find_encoder(graph: gs.Graph) -> Encoder:
    """The encoder in `graph`, which the pass `canonicalize` has prepared.

    Raises NoEncoderError when none is recognised, naming what was missing, for a decoder with a cache, and for a graph
    whose sizes or types fit nothing, which ONNX Runtime does not run either. FaultError where it does: what failed is
    ours. A decoder without a cache embeds texts as an encoder does: it is read, and its attention not proven.
    """
    try:
        return _find_encoder(graph)
    except ModelError as error:
        raise NoEncoderError(str(error)) from error
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
    order = {id(node): i for i, node in enumerate(graph.nodes)}
    cores = [core for node in graph.nodes for core in _cores(node)]
    if not cores:
        raise ModelError(_why_no_attention(graph))
    check_no_cache(graph)
    hiding = masks(graph)
    try:
        layers = tuple(_layer(graph, i, core, order, hiding) for i, core in enumerate(cores))
    except ModelError as error:
        raise ModelError(DECODER) if is_causal(graph, cores[0].result) else error from None
    hidden = layers[0].query.d_in
    for layer in layers:
        if (layer.query.d_in, layer.output.d_out) != (hidden, hidden):
            raise ModelError(
                f"layer {layer.index}: width {layer.query.d_in} -> {layer.output.d_out} where layer 0 has {hidden}; "
                "an encoder keeps one width"
            )
    return Encoder(find_embeddings(graph, layers[0].query), layers, hidden, _head(graph, layers[-1]))


def _head(graph: gs.Graph, last: Layer) -> tuple[Linear, ...]:
    front = list(graph.tensors()[(last.down or last.output).result].outputs)
    found: dict[int, gs.Node] = {}
    while front:
        node = front.pop()
        if id(node) not in found:
            found[id(node)] = node
            front.extend(reader for tensor in node.outputs for reader in tensor.outputs)
    return tuple(read_linear(node) for node in graph.nodes if id(node) in found and is_linear(node))


def _cores(node: gs.Node) -> Iterator[_Core]:
    if node.op == "If" and (inner := _branch_attention(node)) is not None:  # written by `skip-mask`
        query, key, value = inner.inputs[:3]
        yield _Core(node, query, key, value, node.outputs[0], inner.attrs.get("num_heads"))
    elif node.op in FUSED_ATTENTION and len(node.inputs) >= 3:
        heads = node.attrs.get("num_heads") or node.attrs.get("q_num_heads")
        query, key, value = node.inputs[:3]
        yield _Core(node, query, key, value, node.outputs[0], heads)
    elif node.op == "Softmax":
        scores = _up_to_product(node.inputs[0])
        context = _down_to_product(node.outputs[0])
        if scores is not None and context is not None:
            product, value = context
            yield _Core(node, scores.inputs[0], scores.inputs[1], value, product.outputs[0], None)


def _branch_attention(node: gs.Node) -> gs.Node | None:
    branches = [value for value in node.attrs.values() if isinstance(value, gs.Graph)]
    return next((inner for branch in branches for inner in branch.nodes if inner.op in FUSED_ATTENTION), None)


def _up_to_product(tensor: gs.Tensor) -> gs.Node | None:
    """The MatMul of two activations from which the attention scores come."""
    for node in _upstream(tensor, SCORES):
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


def _upstream(tensor: gs.Tensor, through: frozenset[str]) -> Iterator[gs.Node]:
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


def _layer(graph: gs.Graph, index: int, core: _Core, order: dict[int, int], hiding: Sequence[TokenMask]) -> Layer:
    query, key, value = (
        _above(index, role, operand)
        for role, operand in (("query", core.query), ("key", core.key), ("value", core.value))
    )
    first_token = query.source != key.source and _is_first_of(graph, query.source, key.source)
    if query.source != key.source and not first_token:
        raise ModelError(
            f"layer {index}: query and key read different tensors: cross-attention, so not an encoder alone"
        )
    if len({query.node, key.node, value.node}) < 3:
        raise ModelError(
            f"layer {index}: query, key and value are one packed matrix at node {query.node!r}; not supported"
        )
    output_node = _below(core.result, order)
    if output_node is None:
        raise ModelError(f"layer {index}: no dense output after the attention at node {core.node.name!r}")
    output = read_product(output_node)
    heads, head_dim = _heads(graph, index, core, query)
    gate, up, down = _feed_forward(graph, output, order)
    form, reason = _form(graph, (query, key, value), output, heads, hiding, first_token)
    context = output.source
    return Layer(index, heads, head_dim, query, key, value, output, up, down, context, form, reason, first_token, gate)


def _is_first_of(graph: gs.Graph, query_source: str, key_source: str) -> bool:
    """Whether the query reads position 0 of what the key reads, a norm, a scale or quantizers between them aside."""
    tensors = graph.tensors()
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
    for node in _upstream(operand, VIEWS):
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


def _below(tensor: gs.Tensor, order: dict[int, int], accept: Callable[[gs.Node], bool] = is_linear) -> gs.Node | None:
    """The first accepted node in execution order that depends on `tensor`."""
    front, seen = list(tensor.outputs), set[int]()
    found: gs.Node | None = None
    while front:
        node = front.pop()
        if id(node) in seen or (found is not None and order[id(node)] > order[id(found)]):
            continue
        seen.add(id(node))
        if accept(node):
            found = node
        else:
            front.extend(consumer for result in node.outputs for consumer in result.outputs)
    return found


def _feed_forward(
    graph: gs.Graph, output: Linear, order: dict[int, int]
) -> tuple[Linear | None, Linear | None, Linear | None]:
    """The gate, up and down matrices behind `output`; None for what is not there, or not recognised."""
    tensors = graph.tensors()
    up_node = _below(tensors[output.result], order)
    if up_node is None or (up := read_product(up_node)).d_in != output.d_out:
        return None, None, None
    down_node = _below(tensors[up.result], order)
    if down_node is None or (down := read_product(down_node)).d_out != output.d_out or down.source == up.source:
        return None, None, None
    beside = _beside(tensors, up, down)
    if down.d_in != up.d_out or len(beside) > 1 or any(_shape(other) != _shape(up) for other in beside):
        return None, None, None
    first = sorted([up, *beside], key=lambda linear: _is_factor(tensors, linear.result))
    return (first[0], first[1], down) if beside else (None, up, down)


def _beside(tensors: Mapping[str, gs.Tensor], up: Linear, down: Linear) -> list[Linear]:
    """The other dense layers between what `up` reads and what `down` reads."""
    source = tensors[up.source]
    view = producer(source)  # tokens as rows; their shape is read when the rows are tokens again
    ends = [source, tensors[up.result], *(view.inputs[:1] if view is not None and view.op == "Reshape" else [])]
    between = nodes_between(ends, tensors[down.source])
    inner = {matrix.node for matrix in up.matrices}
    return [read_product(node) for node in between if is_linear(node) and node.name not in inner]


def _shape(linear: Linear) -> tuple[str, int, int]:
    return linear.source, linear.d_in, linear.d_out


def _is_factor(tensors: Mapping[str, gs.Tensor], result: str) -> bool:
    """Whether `result` is multiplied as it is: what gates it goes through an activation before."""
    readers = tensors[result].outputs
    return len(readers) == 1 and readers[0].op == "Mul"


def _heads(graph: gs.Graph, index: int, core: _Core, query: Linear) -> tuple[int, int]:
    """The number of heads and their width: written in the graph, or the shape of the scores' left operand."""
    head_dim = query.d_out // core.heads if core.heads else _written_width(core.query)
    if head_dim is None or head_dim <= 0:
        head_dim = probe_shape(graph, query, core.query)[-1]
    if not head_dim or query.d_out % head_dim:
        raise ModelError(f"layer {index}: heads of width {head_dim} do not divide the query's width {query.d_out}")
    return query.d_out // head_dim, head_dim


def _written_width(operand: gs.Tensor) -> int | None:
    """The constant with which the Reshape to heads ends: [..., heads, head_dim]."""
    reshape = next((node for node in _upstream(operand, VIEWS) if node.op == "Reshape"), None)
    shape = reshape.inputs[1] if reshape is not None else None
    while shape is not None and constant(shape) is None:
        node = producer(shape)
        shape = node.inputs[-1] if node is not None and node.op == "Concat" else None
    return int(shape.values.reshape(-1)[-1]) if shape is not None else None


def _form(
    graph: gs.Graph,
    roles: Sequence[Linear],
    output: Linear,
    heads: int,
    hiding: Sequence[TokenMask],
    first_token: bool,
) -> tuple[AttentionForm | None, str]:
    """What the nodes between `roles` (query, key, value) and `output` compute; None and why when that is not proven."""
    form = attention_form(_region(graph, roles, output, hiding, first_token), heads)
    return (None, form) if isinstance(form, str) else (form, "")


def attention_region(graph: gs.Graph, layer: Layer) -> Region:
    """The nodes of the attention of `layer`, from query, key and value to what its output reads."""
    return _region(graph, (layer.query, layer.key, layer.value), layer.output, masks(graph), layer.first_token)


def _region(
    graph: gs.Graph, roles: Sequence[Linear], output: Linear, hiding: Sequence[TokenMask], first_token: bool
) -> Region:
    tensors, (query, key, value) = graph.tensors(), roles
    return Region(
        graph,
        [tensors[linear.result] for linear in roles],
        tensors[key.source],
        tensors[output.source],
        [query.d_out, key.d_out, value.d_out, key.d_in],
        hiding,
        first_token,
        half=tensors[query.weight].values.dtype == np.float16,
    )


def _why_no_attention(graph: gs.Graph) -> str:
    counts: dict[str, int] = {}
    for node in graph.nodes:
        counts[node.op] = counts.get(node.op, 0) + 1
    softmax = counts.get("Softmax", 0)
    common: Sequence[Any] = sorted(counts.items(), key=lambda item: -item[1])[:4]
    listing = ", ".join(f"{number} {op}" for op, number in common)
    found = f"{softmax} Softmax, none between two MatMuls of activations" if softmax else "no Softmax"
    return f"not a transformer encoder: no self-attention ({found}); the graph has {listing}"
