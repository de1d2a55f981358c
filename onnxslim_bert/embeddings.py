"""Find the embedding tables: which Gather reads words, positions and token types is seen by running its indices."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.linear import Linear, is_linear, read_linear
from onnxslim_bert.regions import constant, inputs_of, nodes_between, opsets_of, producer, run

LOOKUPS = ("Gather", "GatherBlockQuantized", "Slice")


@dataclass(frozen=True)
class Embeddings:
    """Names of the tables, [rows, width] each; None when the model has no such table or it was folded away.

    projection: the dense layer from the tables' width to the encoder's (ALBERT, ELECTRA).
    """

    word: str | None
    position: str | None
    token_type: str | None
    projection: Linear | None

    @property
    def tables(self) -> dict[str, str]:
        """The tables by role."""
        roles = ("word", "position", "token_type")
        return {role: name for role in roles if (name := getattr(self, role)) is not None}


def find_embeddings(graph: gs.Graph, first_query: Linear) -> Embeddings:
    """The tables and the projection upstream of the first layer."""
    tensors = graph.tensors()
    nodes = nodes_between([], tensors[first_query.source])
    roles: dict[str, str] = {}
    for node in nodes:
        table = table_of(node)
        if table is not None:
            role = "position" if node.op == "Slice" else _role(graph, node.inputs[1])
            roles.setdefault(role, table.name)
    projection = next((read_linear(node) for node in nodes if is_linear(node)), None)
    return Embeddings(roles.get("word"), roles.get("position"), roles.get("token_type"), projection)


def table_of(node: gs.Node) -> gs.Constant | None:
    """The table [rows, width] that `node` looks rows up in, None when it is no lookup.

    Positions [1, seq] are no table, and neither are the scales [rows, 1] of int8 rows.
    """
    if node.op not in LOOKUPS or node.attrs.get("axis", 0) != 0:
        return None
    tensor = node.inputs[0]
    above = producer(tensor)
    if above is not None and above.op == "DequantizeLinear":
        tensor = above.inputs[0]
    values = constant(tensor)
    if values is None or values.ndim != 2 or values.shape[1] == 1:
        return None
    return tensor if values.dtype.kind == "f" or values.dtype.itemsize == 1 else None


def _role(graph: gs.Graph, indices: gs.Tensor) -> str:
    """What a table is read by: "word", "position", "token_type", or the indices' name when that is not known."""
    values: Array | str | None = constant(indices)
    if values is None:
        values = _probe(graph, indices)
    if isinstance(values, str):
        return values
    if values is not None and not values.any():
        return "token_type"
    is_position = values is not None and values.ndim > 0 and np.unique(values).size > 1
    return "position" if is_position else str(indices.name)


def _probe(graph: gs.Graph, indices: gs.Tensor) -> Array | str | None:
    """The indices for a probe batch; "word" or "token_type" when they are that input as it is."""
    tokens = [t for t in graph.inputs if t.shape is not None and len(t.shape) == 2]
    nodes = nodes_between([], indices)
    read = {t.name for t in inputs_of(nodes)} | ({indices.name} if not nodes else set())
    feeds: dict[str, Array] = {}
    for i, tensor in enumerate(tokens):
        size = tuple(d if isinstance(d, int) else n for d, n in zip(tensor.shape, (2, 6), strict=True))
        feeds[tensor.name] = np.full(size, 2 + i, tensor.dtype or np.int64)
    if nodes:
        try:
            values = run(nodes, {name: feeds[name] for name in read if name in feeds}, indices, opsets_of(graph))
        except ValueError:
            return None
    else:
        values = feeds[indices.name] if indices.name in feeds else np.zeros(0)
    for i, tensor in enumerate(tokens):
        if tensor.name in read and values.shape == feeds[tensor.name].shape and (values == 2 + i).all():
            return "word" if i == 0 else "token_type"
    return values
