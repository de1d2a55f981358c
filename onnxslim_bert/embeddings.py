"""Find the embedding tables: which Gather reads words, positions and token types is seen by running its indices."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.linear import Linear, is_linear, read_linear
from onnxslim_bert.regions import constant, inputs_of, nodes_between, opsets_of, run


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
        table = constant(node.inputs[0]) if node.inputs else None
        if table is None or not is_table(table) or node.attrs.get("axis", 0) != 0:
            continue
        if node.op in ("Gather", "GatherBlockQuantized"):
            roles.setdefault(_role(graph, node.inputs[1]), node.inputs[0].name)
        elif node.op == "Slice":
            roles.setdefault("position", node.inputs[0].name)
    projection = next((read_linear(node) for node in nodes if is_linear(node)), None)
    return Embeddings(roles.get("word"), roles.get("position"), roles.get("token_type"), projection)


def is_table(values: Array) -> bool:
    """Whether `values` may be a table's rows: not positions [1, seq], and not the scales [rows, 1] of int8 rows."""
    return values.ndim == 2 and values.shape[1] > 1 and (values.dtype.kind == "f" or values.dtype.itemsize == 1)


def _role(graph: gs.Graph, indices: gs.Tensor) -> str:
    """What a table is read by: "word", "position", "token_type", or the indices' name when that is not known."""
    values = constant(indices)
    if values is None:
        values = _probe(graph, indices)
    if isinstance(values, str):
        return values
    if values is None:
        return indices.name
    if not values.any():
        return "token_type"
    return "position" if values.ndim and np.unique(values).size > 1 else indices.name


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
