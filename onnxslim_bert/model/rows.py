"""Dense layers over tokens that were made rows first, as onnxsim writes them, are products with the tokens."""

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder, is_output, redirect
from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.linear import is_linear

LIKE_INPUT = frozenset(
    ["Identity", "Cast", "Erf", "Tanh", "Sigmoid", "Relu", "Gelu", "FastGelu", "Softplus", "Sqrt", "Neg", "Dropout"]
)
LONGEST_SHAPE = 8
Entry = int | tuple[int, int]
BROADCAST = frozenset(["Add", "Sub", "Mul", "Div", "Sum", "Pow"])


def spell_rows(graph: gs.Graph) -> int:
    """Write each Gemm of rows [n, d_in] as a product with [batch, seq, d_in]; returns how many were rewritten.

    The Gemm reads Reshape(x, [n or -1, d_in]), as onnxsim and GPT-2's Conv1D write it. Where what is read from it is
    shaped as a view v of x in all but its last axis, v is multiplied: as both have the elements of x, the last axis of
    v has d_in. Elsewhere x is, where its last axis is known to have d_in, and what views the rows views its product.
    """
    count = 0
    for node in [node for node in graph.nodes if node.op == "Gemm" and is_linear(node)]:
        rows, weight = producer(node.inputs[0]), constant(node.inputs[1])
        if weight is None:  # it is quantized
            continue
        d_in, d_out = weight.shape[::-1] if node.attrs.get("transB", 0) else weight.shape
        if rows is None or not _makes_rows(rows, d_in) or is_output(graph, node.outputs[0]):
            continue
        readers = list(node.outputs[0].outputs)
        views = [_viewed_as(reader, rows, d_in, d_out) for reader in readers]
        tokens = next((view for view in views if view is not None), None)
        if tokens is None and (_ends_alike(rows) or last_axis(rows.inputs[0]) == d_in):
            tokens = rows.inputs[0]
        if tokens is None:
            continue
        result = _product(Builder(graph, node.name), node, tokens)
        flat = node.outputs[0]
        for reader, view in zip(readers, views, strict=True):
            if view is not None and view is tokens:
                redirect(graph, reader.outputs[0], result)
            elif reader.op == "Reshape" and not _copies_sizes(reader):
                reader.inputs[0] = result
        if flat.outputs:
            redirect(graph, flat, Builder(graph, node.name).node("Flatten", "rows", [result], axis=-1))
        node.inputs.clear()
        node.outputs.clear()
        count += 1
    return count


def last_axis(tensor: gs.Tensor) -> int | None:
    """How long the last axis of `tensor` is, as the constants say from which it is computed; None where none does."""
    values, node = constant(tensor), producer(tensor)
    if values is not None:
        return values.shape[-1] if values.ndim else 1
    if node is None:
        return None
    if node.op in ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"):
        return last_axis(node.inputs[1])
    if node.op == "MatMul":
        return last_axis(node.inputs[1]) if constant(node.inputs[1]) is not None else None
    if node.op == "Gather" and node.attrs.get("axis", 0) == 0 and constant(node.inputs[0]) is not None:
        return last_axis(node.inputs[0])
    if node.op == "Reshape":
        size = (_entries(node.inputs[1]) or [-1])[-1]
        return size if isinstance(size, int) and size > 0 else None
    if node.op in LIKE_INPUT:
        return last_axis(node.inputs[0])
    sizes = [last_axis(t) for t in node.inputs] if node.op in BROADCAST else []
    return next((size for size in sizes if size is not None and size > 1), None)


def _makes_rows(node: gs.Node, d_in: int) -> bool:
    if node.op == "Flatten":
        return _ends_alike(node)
    found = _entries(node.inputs[1]) if node.op == "Reshape" else None
    return found is not None and len(found) == 2 and found[1] in (d_in, (id(node.inputs[0]), -1))


def _ends_alike(rows: gs.Node) -> bool:
    """Whether a row is as long as the last axis of what it is made of, as the Reshape says, or the Flatten."""
    if rows.op == "Flatten":
        return bool(rows.attrs.get("axis", 1) == -1)
    return (_entries(rows.inputs[1]) or [0])[-1] == (id(rows.inputs[0]), -1)


def _viewed_as(reader: gs.Node, rows: gs.Node, d_in: int, d_out: int) -> gs.Tensor | None:
    """The view of what `rows` reads that is as `reader`, a Reshape, makes the product, but for the d_out channels."""
    found, source = _entries(reader.inputs[1]) if reader.op == "Reshape" else None, rows.inputs[0]
    if found is None or found[-1] != d_out:
        return None
    if source.shape is not None and [*found[:-1], d_in] == list(source.shape):
        return source
    views = [source] if _ends_alike(rows) or last_axis(source) == d_in else []
    beside = [node for node in (*source.inputs, *source.outputs) if node.op == "Reshape" and node is not rows]
    views += [node.outputs[0] for node in beside if len(_entries(node.inputs[1]) or ()) == 3]
    return next((view for view in views if found[:-1] == [(id(view), 0), (id(view), 1)]), None)


def _entries(tensor: gs.Tensor) -> list[Entry] | None:
    """The numbers of a shape, one by one: as such, or as (id of a tensor, axis) for its size; None where not known."""
    values, node = constant(tensor), producer(tensor)
    if values is not None:
        return [int(x) for x in values.reshape(-1)]
    if node is None:
        return None
    if node.op in ("Unsqueeze", "Squeeze", "Identity", "Cast"):
        return _entries(node.inputs[0])
    if node.op == "Concat":
        parts = [_entries(part) for part in node.inputs]
        return None if None in parts else [entry for part in parts for entry in part or ()]
    if (
        node.op == "Shape"
        and 0 <= (start := node.attrs.get("start", 0)) <= (end := node.attrs.get("end", -1)) <= LONGEST_SHAPE
    ):
        return [(id(node.inputs[0]), axis) for axis in range(start, end)]
    shape = producer(node.inputs[0]) if node.op in ("Gather", "Slice") else None
    if shape is None or shape.op != "Shape" or shape.attrs.get("start", 0) or "end" in shape.attrs:
        return None
    bounds = [constant(t) for t in node.inputs[1:3]]
    places = [int(x.reshape(-1)[0]) for x in bounds if x is not None and x.size == 1]
    of = id(shape.inputs[0])
    if node.op == "Gather":
        return [(of, places[0])] if places else None
    if len(places) < 2 or len(node.inputs) > 4:
        return None
    start, end = places
    if start == -1 and end > LONGEST_SHAPE:
        return [(of, -1)]
    return [(of, axis) for axis in range(start, end)] if 0 <= start <= end <= LONGEST_SHAPE else None


def _copies_sizes(reshape: gs.Node) -> bool:
    """Whether a 0 in its shape may stand for a size of what it reads."""
    shape = producer(reshape.inputs[1])
    parts = [constant(t) for t in ([reshape.inputs[1]] if shape is None else shape.inputs)]
    return any(part is not None and bool((part == 0).any()) for part in parts)


def _product(build: Builder, node: gs.Node, tokens: gs.Tensor) -> gs.Tensor:
    weight = node.inputs[1]
    if node.attrs.get("transB", 0):
        weight = build.constant("weight", np.ascontiguousarray(weight.values.T))
    result = build.node("MatMul", "product", [tokens, weight])
    has_bias = len(node.inputs) > 2 and not node.inputs[2].is_empty()
    return build.node("Add", "biased", [result, node.inputs[2]]) if has_bias else result
