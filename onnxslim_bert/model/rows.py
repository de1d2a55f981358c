"""Dense layers over tokens that were made rows first, as onnxsim writes them, are products with the tokens."""

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder, is_output, redirect
from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.linear import is_linear

LIKE_INPUT = frozenset(
    ["Identity", "Cast", "Erf", "Tanh", "Sigmoid", "Relu", "Gelu", "FastGelu", "Softplus", "Sqrt", "Neg", "Dropout"]
)
BROADCAST = frozenset(["Add", "Sub", "Mul", "Div", "Sum", "Pow"])


def spell_rows(graph: gs.Graph) -> int:
    """Write each Gemm of rows [n, d_in] as a product with [batch, seq, d_in]; returns how many were rewritten.

    The Gemm reads Reshape(x, [n or -1, d_in]). Where what is read from it is shaped as a view v of x in all but its
    last axis, v is multiplied: as both have the elements of x, the last axis of v has d_in. Elsewhere x is, whose last
    axis is known to have d_in, and views of the rows become views of its product.
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
        views = [_viewed_as(reader, rows.inputs[0], d_in, d_out) for reader in readers]
        tokens = next((view for view in views if view is not None), None)
        if tokens is None and last_axis(rows.inputs[0]) == d_in:
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
    if node.op in LIKE_INPUT:
        return last_axis(node.inputs[0])
    sizes = [last_axis(t) for t in node.inputs] if node.op in BROADCAST else []
    return next((size for size in sizes if size is not None and size > 1), None)


def _makes_rows(node: gs.Node, d_in: int) -> bool:
    shape = constant(node.inputs[1]) if node.op == "Reshape" else None
    return shape is not None and shape.shape == (2,) and shape[1] == d_in


def _viewed_as(reader: gs.Node, source: gs.Tensor, d_in: int, d_out: int) -> gs.Tensor | None:
    """The view of `source` whose axes but the last one the result of `reader`, a Reshape to d_out channels, has."""
    fixed = constant(reader.inputs[1]) if reader.op == "Reshape" else None
    if fixed is not None:
        is_like = source.shape is not None and [*fixed[:-1].tolist(), d_in] == list(source.shape)
        return source if is_like and fixed[-1] == d_out else None
    shape = producer(reader.inputs[1]) if reader.op == "Reshape" else None
    if shape is None or shape.op != "Concat" or len(shape.inputs) != 2:
        return None
    last, sizes = constant(shape.inputs[1]), _sizes(shape.inputs[0])
    if last is None or last.tolist() != [d_out] or sizes is None:
        return None
    above = producer(sizes)
    is_view = sizes is source or (above is not None and above.op == "Reshape" and above.inputs[0] is source)
    return sizes if is_view else None


def _sizes(tensor: gs.Tensor) -> gs.Tensor | None:
    """The tensor [batch, seq, channels] of which `tensor` holds the first two sizes."""
    cut = producer(tensor)
    if cut is None or cut.op != "Slice":
        return None
    shape, bounds = producer(cut.inputs[0]), [constant(t) for t in cut.inputs[1:]]
    found = [None if bound is None else bound.tolist() for bound in bounds]
    is_whole = (
        shape is not None and shape.op == "Shape" and not shape.attrs.get("start", 0) and "end" not in shape.attrs
    )
    return shape.inputs[0] if shape is not None and is_whole and found in ([[0], [2]], [[0], [2], [0]]) else None


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
