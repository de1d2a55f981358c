"""Take packed matrices apart: query, key and value, or a gate and its up, in one product that views cut later.

Exporters cut in many places: behind a Reshape to [batch, seq, 3, heads, head_dim] or [batch, seq, heads, 3 * head_dim],
by Split, Slice or Gather, before or after a Transpose. So channel numbers are sent through the views: what arrives at a
cut says which columns it takes, and in which order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder, is_output, redirect
from onnxslim_bert.graph.probe import constant, inputs_of, nodes_between, opsets_of, producer, run_all
from onnxslim_bert.model.linear import Linear, is_linear, read_linear
from onnxslim_bert.model.token_masks import probe_size, token_inputs, token_type

VIEWS = frozenset(["Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"])
CUTS = frozenset(["Split", "Slice", "Gather"])
EXACT = 1 << 24  # whole numbers below are exact in float32


@dataclass(frozen=True)
class Piece:
    """A tensor that takes some columns of a packed matrix.

    columns: their numbers, in order. shape: of the axes that hold them.
    order: the Transpose that brings [batch, seq, *shape] into the tensor's own order of axes.
    """

    tensor: gs.Tensor
    columns: Array
    shape: tuple[int, ...]
    order: tuple[int, ...]


def part_packed(graph: gs.Graph) -> int:
    """Replace each packed matrix by one matrix for each of its pieces; returns how many were replaced."""
    build, parted, tensors = Builder(graph, ""), 0, graph.tensors()
    for node in [node for node in graph.nodes if node.op in ("MatMul", "Gemm") and is_linear(node)]:
        linear, source = read_linear(node), _tokens(node)
        if source is None:
            continue
        cuts = _cuts(tensors[linear.result])
        pieces = _pieces(graph, linear, source, cuts) if cuts and not linear.quantized else []
        if pieces:
            build.prefix = node.name
            _part(graph, build, node, source, pieces)
            parted, tensors = parted + 1, graph.tensors()
    return parted


def _tokens(node: gs.Node) -> gs.Tensor | None:
    """The [batch, seq, d_in] that the dense `node` reads, which Gemm reads as rows; None where it reads other rows."""
    if node.op == "MatMul":
        return node.inputs[0]
    view = producer(node.inputs[0])
    return view.inputs[0] if view is not None and view.op == "Reshape" and _is_flat(view.inputs[1]) else None


def _is_flat(shape: gs.Tensor) -> bool:
    """Whether `shape` is [-1, n], n known or not."""
    values, above = constant(shape), producer(shape)
    if values is None and above is not None and above.op == "Concat" and len(above.inputs) == 2:
        values = constant(above.inputs[0])
    return values is not None and values.size <= 2 and values.reshape(-1)[0] == -1


def _cuts(result: gs.Tensor) -> list[gs.Node]:
    """The nodes that cut `result`, views between; none where anything else reads it, or one of the views."""
    cuts: list[gs.Node] = []
    front = [result]
    while front:
        for node in front.pop().outputs:
            if node.op in CUTS and constant(node.inputs[0]) is None:
                cuts.append(node)
            elif node.op in VIEWS:
                front.extend(node.outputs)
            elif node.op != "Shape":
                return []
    return cuts


def _pieces(graph: gs.Graph, linear: Linear, source: gs.Tensor, cuts: Sequence[gs.Node]) -> list[Piece]:
    """The pieces that `cuts` take of a packed matrix; none where a cut takes no columns, or halves of heads.

    Halves of heads are cut for rotary positions: the matrix is then not packed.
    """
    tensors = [tensor for cut in cuts for tensor in cut.outputs if tensor.outputs or is_output(graph, tensor)]
    numbers = list(_numbered(graph, linear, source, tensors))
    if len(numbers) < len(tensors):  # the cuts do not run on what they read
        return []
    alone = probe_size(graph)[0] == 1
    pieces = [_piece(tensor, values, linear.d_out, alone) for tensor, values in zip(tensors, numbers, strict=True)]
    found = [piece for piece in pieces if piece is not None]
    if len(found) < 2 or len(found) < len(tensors):
        return []
    first = graph.tensors()[linear.result]
    in_heads = any(cut.inputs[0] is not first for cut in cuts)
    if in_heads and len(found) == 2 and not _is_apart(found):
        return []  # of rotary positions: a head's first channels and the others
    return found


def _is_apart(pieces: Sequence[Piece]) -> bool:
    """Whether each piece is one run of columns, as key and value are and halves of heads are not."""
    return all((np.diff(np.sort(piece.columns)) == 1).all() for piece in pieces)


def _numbered(graph: gs.Graph, linear: Linear, source: gs.Tensor, tensors: Sequence[gs.Tensor]) -> list[Array]:
    """`tensors` where the result of the packed layer holds token * d_out + channel; none where that does not run."""
    known = graph.tensors()
    batch, seq = probe_size(graph)
    inputs = token_inputs(graph)
    looked_up = [node for node in graph.nodes if node.op == "Gather" and any(node.inputs[1] is t for t in inputs)]
    tables = {node.outputs[0].name: table for node in looked_up if (table := constant(node.inputs[0])) is not None}
    ends = [known[name] for name in (linear.result, source.name, *tables)] + inputs
    nodes = list({id(n): n for tensor in tensors for n in nodes_between(ends, tensor)}.values())
    if batch * seq * linear.d_out >= EXACT:
        return []
    feeds: dict[str, Array] = {t.name: np.ones((batch, seq), token_type(t)) for t in inputs}
    feeds |= {name: np.zeros((batch, seq, *table.shape[1:]), table.dtype) for name, table in tables.items()}
    feeds[source.name] = np.zeros((batch, seq, linear.d_in), np.float32)
    rows = (batch, seq) if source.name == linear.source else (batch * seq,)
    feeds[linear.result] = np.arange(batch * seq * linear.d_out, dtype=np.float32).reshape(*rows, -1)
    read = {tensor.name for tensor in inputs_of(nodes)}
    try:
        return run_all(nodes, {n: v for n, v in feeds.items() if n in read}, tensors, opsets_of(graph))
    except ValueError:
        return []


def _piece(tensor: gs.Tensor, numbers: Array, width: int, alone: bool) -> Piece | None:
    """The piece that `tensor` is, if it holds the same columns of every token, and not all of them; else None.

    numbers: its values where the packed result holds token * width + channel. alone: the graph takes one text a batch,
    so that an axis of one element is that of the batch, whichever.
    """
    numbers = numbers.astype(np.int64)
    tokens, channels = numbers // width, numbers % width
    rows = [axis for axis in range(numbers.ndim) if (np.diff(tokens, axis=axis) != 0).any()]
    if alone and len(rows) == 1 and 1 in numbers.shape:
        first, second = numbers.shape.index(1), rows[0]
    elif len(rows) == 2:
        first, second = sorted(rows, key=lambda axis: -int(np.abs(np.diff(tokens, axis=axis)).max()))
    else:
        return None
    others = [axis for axis in range(numbers.ndim) if axis not in (first, second)]
    turned, seen = (values.transpose(first, second, *others) for values in (channels, tokens))
    columns = turned[0, 0].reshape(-1)
    one_each = seen.reshape(seen.shape[0] * seen.shape[1], -1)
    if not (turned == turned[:1, :1]).all() or not (one_each == np.arange(len(one_each))[:, None]).all():
        return None
    if columns.size >= width:
        return None
    order = np.argsort([first, second, *others])
    return Piece(tensor, columns, turned.shape[2:], tuple(int(axis) for axis in order))


def _part(graph: gs.Graph, build: Builder, node: gs.Node, source: gs.Tensor, pieces: Sequence[Piece]) -> None:
    """Write a layer of `source` for each piece, and the views that bring its result into the piece's shape."""
    tensors, linear = graph.tensors(), read_linear(node)
    weight = tensors[linear.weight].values.T if linear.trans_b else tensors[linear.weight].values
    bias = tensors[linear.bias].values if linear.bias else None
    for piece in pieces:
        part = build.constant("weight", np.ascontiguousarray(weight[:, piece.columns]))
        result = build.node("MatMul", "part", [source, part])
        if bias is not None:
            result = build.node("Add", "biased", [result, build.constant("bias", bias[piece.columns])])
        if len(piece.shape) != 1:
            shape = build.constant("shape", np.array([0, 0, *piece.shape], np.int64))
            result = build.node("Reshape", "apart", [result, shape])
        if piece.order != tuple(range(len(piece.order))):
            result = build.node("Transpose", "turned", [result], perm=list(piece.order))
        old = piece.tensor
        old.inputs.clear()
        redirect(graph, old, result)
    for shape in [
        reader for reader in tensors[linear.result].outputs if reader.op == "Shape" and _is_of_tokens(reader)
    ]:
        shape.inputs[0] = source


def _is_of_tokens(shape: gs.Node) -> bool:
    """Whether only the first two sizes of a shape are read."""
    if shape.attrs.get("end", 3) in (1, 2):
        return True
    readers = shape.outputs[0].outputs
    return bool(readers) and all(_takes_first_two(reader) for reader in readers)


def _takes_first_two(reader: gs.Node) -> bool:
    values = [constant(tensor) for tensor in reader.inputs[1:]]
    if any(value is None for value in values):
        return False
    numbers = [np.asarray(value).reshape(-1).tolist() for value in values]
    if reader.op == "Gather":
        return all(number in (0, 1, -2, -3) for number in numbers[0])
    return reader.op == "Slice" and numbers[1] in ([1], [2], [-1])
