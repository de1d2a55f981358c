"""Floating-point operations of an encoder: a multiplication and an addition are two."""

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant, nodes_between
from onnxslim_bert.inspection.parts import PartName, part_of_nodes
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.linear import Linear, is_linear, read_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.tokenwise import is_tokenwise

SELECTS = frozenset(("Gather", "GatherND", "Slice", "ReduceMean", "ReduceSum", "ReduceMax"))
ATTENTION, FEED_FORWARD = frozenset(("query", "key", "value", "output")), frozenset(("gate", "up", "down"))
ONE_TOKEN = frozenset(("query", "output", "gate", "up", "down"))  # of a layer that `first-token` has rewritten


def flops_by_part(model: Model, batch: int, seq: int) -> dict[PartName, int]:
    """Floating-point operations of each part of `model` for `batch` sentences of `seq` tokens without padding.

    Counted are dense layers and the two products of attention. Lookups, norms, softmax and activations are left out:
    they are a few thousandths of it. Example: a dense layer from 4 to 8 columns on 2 x 3 tokens: 2 * 6 * 4 * 8 = 384.
    """
    encoder = model.encoder
    tokens = batch * seq
    projection = encoder.embeddings.projection
    found: dict[PartName, int] = {
        "embeddings": _dense(projection, tokens) if projection else 0,
        "attention": sum(_attention(layer, batch, seq) for layer in encoder.layers),
        "feed-forward": sum(_products(layer, FEED_FORWARD, batch, seq) for layer in encoder.layers),
        "head": sum(_dense(linear, batch if reads_one_token(model, linear) else tokens) for linear in encoder.head),
    }
    for part, linear in _without_roles(model):
        found[part] = found.get(part, 0) + _dense(linear, batch if reads_one_token(model, linear) else tokens)
    return found


def _without_roles(model: Model) -> Iterator[tuple[PartName, Linear]]:
    """The dense layers without a role in an encoder layer or the head, each with its part.

    Such are bottlenecks around a layer, further feed-forwards in it, and branches beside it.
    """
    encoder, parts = model.encoder, part_of_nodes(model)
    known = {matrix.node for layer in encoder.layers for linear in layer.linears.values() for matrix in linear.matrices}
    known |= {matrix.node for linear in encoder.head for matrix in linear.matrices}
    if encoder.embeddings.projection:
        known |= {matrix.node for matrix in encoder.embeddings.projection.matrices}
    for node in model.graph.nodes:
        if is_linear(node) and node.name not in known:
            yield parts[id(node)], read_linear(node)


def reads_one_token(model: Model, linear: Linear) -> bool:
    """Whether a dense layer of the head works once for a sentence, on a chosen or averaged token."""
    last = model.encoder.layers[-1]
    final = model.graph.tensors()[(last.down or last.output).result]
    path = _between(final, model.graph.tensors()[linear.source])
    return last.first_token or any(_selects(node) for node in path)


def _between(start: gs.Tensor, end: gs.Tensor) -> list[gs.Node]:
    """The nodes above `end` that depend on `start`."""
    reached = {id(start)}
    path: list[gs.Node] = []
    for node in nodes_between([start], end):
        if any(id(tensor) in reached for tensor in node.inputs):
            reached |= {id(tensor) for tensor in node.outputs}
            path.append(node)
    return path


def _selects(node: gs.Node) -> bool:
    """Whether `node` makes one vector of all tokens of a sentence, by choosing, averaging or attention pooling.

    Attention pooling is a product of two activations: a MatMul without a constant.
    """
    weighs = node.op == "MatMul" and not any(constant(tensor) is not None for tensor in node.inputs)
    return weighs or (node.op in SELECTS and not is_tokenwise(node))


def _attention(layer: Layer, batch: int, seq: int) -> int:
    queries = 1 if layer.first_token else seq
    scores_and_context = 2 * batch * queries * seq * (layer.query.d_out + layer.value.d_out)
    return scores_and_context + _products(layer, ATTENTION, batch, seq)


def _products(layer: Layer, roles: frozenset[str], batch: int, seq: int) -> int:
    """The operations of the layer's matrices in `roles`; a factor that several of them share counts once."""
    linears = {role: linear for role, linear in layer.linears.items() if role in roles}
    rows = {matrix: _rows(layer, role, batch, seq) for role, linear in linears.items() for matrix in linear.matrices}
    return sum(_dense(matrix, number) for matrix, number in rows.items())


def _rows(layer: Layer, role: str, batch: int, seq: int) -> int:
    return batch if layer.first_token and role in ONE_TOKEN else batch * seq


def _dense(linear: Linear, rows: int) -> int:
    return 2 * rows * linear.d_in * linear.d_out
