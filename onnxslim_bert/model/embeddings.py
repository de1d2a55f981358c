"""Find the embedding tables: which Gather reads words, positions and token types is seen by running its indices."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.probe import constant, inputs_of, nodes_between, opsets_of, producer, run
from onnxslim_bert.graph.signature import flat_shape
from onnxslim_bert.model.linear import Linear, is_linear, read_linear
from onnxslim_bert.model.lookups import rows_read
from onnxslim_bert.model.role_names import role_of

LOOKUPS = ("Gather", "GatherBlockQuantized", "Slice")
MOST_PADDING = 4  # rows of a table of positions among which padding's is looked for


@dataclass(frozen=True)
class Embeddings:
    """The embedding tables by name, [rows, width] each; None when the model has no such table or it was folded away.

    projection: the dense layer from the tables' width to the encoder's (ALBERT, ELECTRA).
    ids: the graph input that the word table is read by.
    map: [vocabulary] integers, the word table's row for each token id; None when the ids are rows.
    vocabulary: how many token ids the model takes.
    """

    word: str | None
    position: str | None
    token_type: str | None
    projection: Linear | None
    ids: str | None = None
    map: str | None = None
    vocabulary: int | None = None

    @property
    def tables(self) -> dict[str, str]:
        """The tables by role."""
        roles = ("word", "position", "token_type")
        return {role: name for role in roles if (name := getattr(self, role)) is not None}


def find_embeddings(graph: gs.Graph, first_query: Linear | None) -> Embeddings:
    """The tables and the projection upstream of the first layer; without one, the tables of the whole graph."""
    tensors = graph.tensors()
    nodes = list(graph.nodes) if first_query is None else nodes_between([], tensors[first_query.source])
    found: dict[str, tuple[str, gs.Constant | None]] = {}
    for node in nodes:
        table = table_of(node)
        if table is not None:
            role, mapped = _role(graph, node)
            found.setdefault(role, (table.name, mapped))
    word, mapped = found.get("word", (None, None))
    position, token_type = (found[role][0] if role in found else None for role in ("position", "token_type"))
    projection = next((read_linear(node) for node in nodes if first_query is not None and is_linear(node)), None)
    return Embeddings(
        word,
        position,
        token_type,
        projection,
        ids=_token_inputs(graph)[0].name if word else None,
        map=mapped.name if mapped else None,
        vocabulary=len((mapped or tensors[word]).values) if word else None,
    )


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


def first_position(indices: gs.Tensor) -> int:
    """The position of a row's first token where `indices` are the model's input: 0, or what follows padding's.

    Of a table with a row of zeros among its first, that row is padding's, and tokens begin behind it. Example: 2 of
    RoBERTa, whose padding has position 1.
    """
    readers = [
        reader for node in indices.outputs for reader in (node.outputs[0].outputs if node.op == "Cast" else [node])
    ]
    for table in filter(None, map(table_of, readers)):
        empty = np.flatnonzero(~table.values[:MOST_PADDING].any(axis=1))
        return int(empty[0]) + 1 if len(empty) else 0
    return 0


def id_map(node: gs.Node) -> tuple[gs.Constant, gs.Tensor] | None:
    """The constant [ids] of rows through which the lookup `node` reads, and the ids; None when it has no such map."""
    above = producer(node.inputs[1])
    values = constant(above.inputs[0]) if above is not None and above.op == "Gather" else None
    if above is None or values is None or values.ndim != 1 or values.dtype.kind != "i":
        return None
    return above.inputs[0], above.inputs[1]


def _role(graph: gs.Graph, node: gs.Node) -> tuple[str, gs.Constant | None]:
    """What the lookup `node` is read by, and the map through which it reads token ids, if any."""
    if node.op == "Slice":
        return "position", None
    mapped = id_map(node)
    if mapped is not None and _role_of(graph, mapped[1]) == "word":
        return "word", mapped[0]
    return _role_of(graph, node.inputs[1]), None


def _role_of(graph: gs.Graph, indices: gs.Tensor) -> str:
    """What indices are: "word", "position", "token_type", or their name when that is not known."""
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
    """The indices for a probe batch; "word", "position" or "token_type" when they are that input as it is."""
    tokens = _token_inputs(graph)
    nodes = nodes_between([], indices)
    read = {t.name for t in inputs_of(nodes)} | ({indices.name} if not nodes else set())
    feeds: dict[str, Array] = {}
    for i, tensor in enumerate(tokens):
        usual = (2, 3, 6) if len(tensor.shape) == 3 else (2, 6)
        size = tuple(d if isinstance(d, int) else n for d, n in zip(tensor.shape, usual, strict=True))
        feeds[tensor.name] = np.full(size, 2 + i, tensor.dtype or np.int64)
    if nodes:
        try:
            values = run(nodes, {name: feeds[name] for name in read if name in feeds}, indices, opsets_of(graph))
        except ValueError:
            return None
    else:
        values = feeds[indices.name] if indices.name in feeds else np.zeros(0)
    for i, tensor in enumerate(tokens):
        shape = feeds[tensor.name].shape
        flat = (int(np.prod(shape[:-1])), shape[-1])
        if tensor.name in read and values.shape in (shape, flat) and (values == 2 + i).all():
            return "word" if i == 0 else "position" if role_of(tensor.name) == "positions" else "token_type"
    return values


def _token_inputs(graph: gs.Graph) -> list[gs.Tensor]:
    """The inputs [batch, seq] or [batch, choices, seq]; first token ids, of the largest table but for positions'."""
    rows = rows_read(graph)
    tokens = [t for t in graph.inputs if t.shape is not None and len(flat_shape(t.shape, t.dtype)) == 2]
    return sorted(tokens, key=lambda tensor: (role_of(tensor.name) == "positions", -rows.get(tensor.name, 0)))
