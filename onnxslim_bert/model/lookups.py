"""Which graph inputs are row numbers of a table: seen by following them through the nodes that keep their values."""

from collections.abc import Iterator

import onnx_graphsurgeon as gs

# Nodes whose first output holds values of their first input, whatever its shape and integer type.
KEEPING = frozenset(
    [
        *("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Transpose", "Slice", "Clip"),
        *("Gather", "GatherND", "GatherElements", "Compress", "Concat", "Pad", "Max", "Min", "Abs", "Relu"),
    ]
)
LOOKUPS = ("Gather", "GatherBlockQuantized")


def rows_read(graph: gs.Graph) -> dict[str, int]:
    """Input name -> rows of the largest table [rows, width] that it is the row numbers of; others are left out.

    Through a map of ids it is the map's length that counts. A table may be read by Gather (also int8 or packed), as a
    one-hot product, or by a fused embedding.
    """
    found = {tensor.name: max(_tables(tensor), default=0) for tensor in graph.inputs}
    return {name: rows for name, rows in found.items() if rows}


def _tables(tensor: gs.Tensor) -> Iterator[int]:
    """The rows of every table that `tensor` is the row numbers of."""
    front, seen = [tensor], set[int]()
    while front:
        current = front.pop()
        for node in current.outputs:
            places = [i for i, read in enumerate(node.inputs) if read is current]
            if node.op == "EmbedLayerNormalization":
                tables = {0: 2, 1: 4}  # ids and types, and the places of their tables
                yield from (shape[0] for i in places if i in tables and (shape := _shape(node.inputs[tables[i]])))
            elif node.op in LOOKUPS and 1 in places and (shape := _shape(node.inputs[0])):
                if (len(shape) == 2 and node.attrs.get("axis", 0) == 0) or (
                    len(shape) == 1 and any(_tables(node.outputs[0]))
                ):
                    yield shape[0]
            elif node.op == "OneHot" and 0 in places:
                yield from _products(node.outputs[0])
            elif node.op in KEEPING and 0 in places and id(node) not in seen:
                seen.add(id(node))
                front.extend(node.outputs[:1])


def _products(one_hot: gs.Tensor) -> Iterator[int]:
    """The rows of the tables that a one-hot tensor is multiplied with."""
    for node in one_hot.outputs:
        if node.op == "MatMul" and node.inputs[0] is one_hot and (shape := _shape(node.inputs[1])):
            yield shape[0]
        elif node.op in KEEPING:
            yield from _products(node.outputs[0])


def _shape(tensor: gs.Tensor) -> tuple[int, ...] | None:
    """The shape of a constant, also behind nodes that only change its type or scale; None for anything else."""
    while not isinstance(tensor, gs.Constant):
        if not tensor.inputs or not tensor.inputs[0].inputs:
            return None
        node = tensor.inputs[0]
        if node.op == "Constant":
            value = node.attrs.get("value")
            return None if value is None else tuple(value.shape)
        if node.op not in ("Identity", "Cast", "DequantizeLinear", "Mul"):
            return None
        tensor = node.inputs[0]
    return tuple(int(size) for size in tensor.shape)
