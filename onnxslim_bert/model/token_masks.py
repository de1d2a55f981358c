"""Token masks: the tensors of a graph that say which tokens are real and which are padding."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.probe import constant, inputs_of, nodes_between, opsets_of, producer, run_all
from onnxslim_bert.graph.signature import flat_shape

PROBE = (3, 7)  # a batch and a length that no size of an encoder is likely to equal
IDS = np.arange(96).reshape(2, 48)  # to find the one id that stands for padding
LOOKUPS = ("Gather", "GatherBlockQuantized")
COMPARES = frozenset(
    ["Equal", "Not", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Cast", "Sub", "Sign", "Min", "Clip"]
)


@dataclass(frozen=True)
class TokenMask:
    """A tensor [batch, seq] whose zeros may stand for padding."""

    tensor: gs.Tensor
    dtype: Any


def token_inputs(graph: gs.Graph) -> list[gs.Tensor]:
    """The graph inputs of shape [batch, seq]; of one [batch, choices, seq] what flattens it to rows [rows, seq]."""
    return [
        rows
        for tensor in graph.inputs
        if tensor.shape is not None
        for rows in ([tensor] if len(tensor.shape) == 2 else _flattened(tensor))
    ]


def token_type(tensor: gs.Tensor) -> Any:
    """The element type of one of `token_inputs`, or of `choice_inputs`; int64 where the graph does not say it."""
    node = producer(tensor)
    return tensor.dtype or (node.inputs[0].dtype if node is not None else None) or np.int64


def choice_inputs(graph: gs.Graph) -> list[gs.Tensor]:
    """The graph inputs of shape [batch, choices, seq]."""
    return [t for t in graph.inputs if t.shape is not None and len(flat_shape(t.shape, t.dtype)) < len(t.shape)]


def as_choices(tensor: gs.Tensor, rows: Array) -> Array:
    """`rows` [rows, seq] in the shape of an input [batch, choices, seq], of as many choices as it fixes, or of one."""
    choices = tensor.shape[1] if isinstance(tensor.shape[1], int) and len(rows) % tensor.shape[1] == 0 else 1
    return rows.reshape(-1, choices, rows.shape[1])


def _flattened(tensor: gs.Tensor) -> list[gs.Tensor]:
    """What an input [batch, choices, seq] of integers is reshaped to with two axes."""
    if len(flat_shape(tensor.shape, tensor.dtype)) != 2:
        return []
    readers = [node for node in tensor.outputs if node.op == "Reshape" and node.inputs[0] is tensor]
    return [node.outputs[0] for node in readers if _axes(node.inputs[1]) == 2]


def _axes(shape: gs.Tensor) -> int | None:
    """How many numbers a tensor of a shape has, where the graph says it."""
    values, node = constant(shape), producer(shape)
    if values is not None:
        return int(values.size)
    if node is None:
        return None
    if node.op == "Shape" and "end" in node.attrs:
        return int(node.attrs["end"]) - int(node.attrs.get("start", 0))
    if node.op == "Concat":
        sizes = [_axes(tensor) for tensor in node.inputs]
        return None if None in sizes else sum(size for size in sizes if size is not None)
    return 1 if node.op == "Unsqueeze" else None


def probe_size(graph: gs.Graph) -> tuple[int, int]:
    """A batch and a length that the inputs accept: their own where they are fixed, else PROBE."""
    shapes = [flat_shape(t.shape, t.dtype) for t in graph.inputs if t.shape is not None and len(t.shape) >= 2]
    batch, seq = (next((s[i] for s in shapes if isinstance(s[i], int)), size) for i, size in enumerate(PROBE))
    return int(batch), int(seq)


def has_fixed_length(graph: gs.Graph) -> bool:
    """Whether an input takes rows of one length only."""
    shapes = [flat_shape(t.shape, t.dtype) for t in graph.inputs if t.shape is not None]
    return any(len(shape) >= 2 and isinstance(shape[1], int) for shape in shapes)


def masks(graph: gs.Graph) -> list[TokenMask]:
    """The tensors that may be masks over keys, of five kinds.

    Graph inputs [batch, seq] that no table is read by.
    Parts of them, [batch, kept], which the pass `drop-tokens` writes: what GatherND takes of a mask, times 0 for places
    that no token fills.
    The first tokens of each row, as many as a graph input has ones: what attention sees that is given their number.
    What the graph makes of token ids by comparing them with the id that stands for padding: ids != 1, for instance.
    Some rows of any of these, which the pass `early-exit` writes.
    """
    inputs = token_inputs(graph)
    given = [TokenMask(tensor, token_type(tensor)) for tensor in inputs if not _is_ids(tensor)]
    parts = [
        node.outputs[0]
        for node in graph.nodes
        if node.op == "Mul" and (above := producer(node.inputs[0])) is not None and above.op == "GatherND"
    ]
    counted = [TokenMask(node.outputs[0], np.int32) for node in graph.nodes if _counts_ones(node, inputs)]
    whole = [*inputs, *(mask.tensor for mask in counted)]
    taken = [TokenMask(part, np.int64) for part in parts if _is_taken_from(part, whole)]
    made = [mask for tensor in inputs if _is_ids(tensor) for mask in _made_of(graph, tensor)]
    return list(_with_rows([*given, *counted, *taken, *made]))


def _with_rows(whole: list[TokenMask]) -> Iterator[TokenMask]:
    """These masks, and rows of them, computed ones, that a Gather takes."""
    for mask in whole:
        yield mask
        readers = [node for node in mask.tensor.outputs if node.op == "Gather" and node.inputs[0] is mask.tensor]
        rows = [node for node in readers if node.attrs.get("axis", 0) == 0 and constant(node.inputs[1]) is None]
        yield from _with_rows([TokenMask(node.outputs[0], mask.dtype) for node in rows])


def _counts_ones(node: gs.Node, inputs: list[gs.Tensor]) -> bool:
    """Whether `node` writes which places of a row lie within the number of ones that one of `inputs` has there."""
    for op in ("Cast", "Not", "Greater"):
        if node is None or node.op != op:
            return False
        node = producer(node.inputs[1 if op == "Greater" else 0])
    while node is not None and node.op in ("Unsqueeze", "Cast"):
        node = producer(node.inputs[0])
    if node is None or node.op != "ReduceSum":
        return False
    ones = node.inputs[0]
    while (above := producer(ones)) is not None and above.op == "Cast":
        ones = above.inputs[0]
    return any(ones is tensor for tensor in inputs)


def _is_ids(tensor: gs.Tensor) -> bool:
    """Whether rows of a table, or of a map of ids, are looked up by `tensor`."""
    readers = [node for node in tensor.outputs if node.op in LOOKUPS and node.inputs[1] is tensor]
    tables = [constant(node.inputs[0]) for node in readers]
    behind = [t for node in tensor.outputs if node.op in ("Cast", "Reshape") for t in node.outputs]
    return any(table is None or table.ndim > 1 or table.dtype.kind == "i" for table in tables) or any(
        _is_ids(other) for other in behind
    )


def _is_taken_from(tensor: gs.Tensor, masks: list[gs.Tensor]) -> bool:
    """Whether `tensor` holds what a GatherND has taken of one of `masks`."""
    while not any(tensor is mask for mask in masks):
        node = producer(tensor)
        if node is None or node.op not in ("Cast", "Mul", "GatherND"):
            return False
        tensor = node.inputs[0]
    return True


def _made_of(graph: gs.Graph, ids: gs.Tensor) -> Iterator[TokenMask]:
    """The tensors, made of `ids` alone, that are 0 for one id and 1 for all others."""
    cone, front = dict[int, gs.Tensor](), [ids]
    while front:
        for node in front.pop().outputs:
            others = [t for t in node.inputs if not t.is_empty() and t is not ids and id(t) not in cone]
            if node.op in COMPARES and all((x := constant(t)) is not None and x.size == 1 for t in others):
                front.extend(tensor for tensor in node.outputs if id(tensor) not in cone)
                cone |= {id(tensor): tensor for tensor in node.outputs}
    found = list(cone.values())
    if not any(node.op != "Cast" for tensor in found for node in tensor.inputs):
        return
    nodes = list({id(n): n for tensor in found for n in nodes_between([ids], tensor)}.values())
    dtype = token_type(ids)
    shape = [
        size if isinstance(size, int) else own for size, own in zip(ids.shape or (None, None), IDS.shape, strict=True)
    ]
    feeds = {t.name: np.resize(IDS, shape).astype(dtype) for t in inputs_of(nodes)}
    for tensor, values in zip(found, run_all(nodes, feeds, found, opsets_of(graph)), strict=True):
        if values.dtype.kind in "iub" and _hides_one_id(values, feeds[ids.name]):
            yield TokenMask(tensor, values.dtype)


def _hides_one_id(values: Array, ids: Array) -> bool:
    """Whether `values` are 0 at one of the ids and 1 elsewhere."""
    if values.shape != ids.shape or set(np.unique(values).tolist()) != {0, 1}:
        return False
    hidden = np.unique(ids[values == 0])
    return hidden.size == 1 and not np.isin(ids[values != 0], hidden).any()
