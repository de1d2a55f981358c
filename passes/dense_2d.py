"""Write dense layers, and the operators between them, for two-dimensional tensors [batch * seq, width]."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect, sort_nodes
from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.linear import Linear, is_linear, read_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import has_fixed_shape, infer_shapes
from onnxslim_bert.model.simplify import bypass_same_shape, tidy
from onnxslim_bert.model.tokenwise import OPERATORS
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.wording import plural

RESHAPES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")


@dataclass(frozen=True)
class Dense2d(Pass):
    """Turn dense layers over [batch, seq, width] into Gemm nodes, bias included, over [batch * seq, width].

    For NNAPI, which multiplies by a constant matrix in two dimensions only. Example: batch=1, seq=64, width=384 goes
    from [1, 64, 384] to [64, 384].

    Norms, activations and sums between dense layers become two-dimensional too, and attention's own Reshapes, to heads
    and back, start from and end in two dimensions. So hardly any Reshape is added: one behind the embeddings, and one
    where the first token is cut out. Within 1e-5. Needs fixed shapes (`fix-shapes`).
    """

    name: ClassVar[str] = "dense-2d"
    exact: ClassVar[float | None] = 1e-5
    empty_rows: ClassVar[bool] = True
    ends_encoder: ClassVar[bool] = True

    def apply(self, model: Model, ctx: Context) -> Change:
        if not all(has_fixed_shape(tensor) for tensor in model.graph.inputs):
            raise PassError("dense-2d: inputs have no fixed shape; run fix-shapes before")
        infer_shapes(model)
        graph = model.graph
        sort_nodes(graph)
        before = _reshapes(graph)
        dense = 0
        for node in list(graph.nodes):
            if _is_dense_3d(node):
                flatten_dense(graph, node, read_linear(node))
                dense += 1
            elif is_between(node):
                flatten_between(graph, node)
        if not dense:
            return Change(0, "no dense layer reads [batch, seq, width]")
        model.changed()
        join_reshapes(model)
        return Change(
            dense, f"{plural(dense, 'dense layer')} in two dimensions; Reshapes: {_reshapes(model.graph) - before:+d}"
        )


def _reshapes(graph: gs.Graph) -> int:
    return sum(node.op in RESHAPES for node in graph.nodes)


def _is_dense_3d(node: gs.Node) -> bool:
    is_float = node.op == "MatMul" and is_linear(node) and constant(node.inputs[1]) is not None
    return is_float and _rank(node.inputs[0]) == 3


def is_between(node: gs.Node) -> bool:
    """Whether `node` works on each token by itself and reads a view of a tensor that is two-dimensional by now."""
    by_token = node.op in OPERATORS and node.attrs.get("axis", -1) == -1 and len(node.outputs) == 1
    return by_token and _rank(node.outputs[0]) == 3 and any(_rows(tensor) is not None for tensor in node.inputs)


def flatten_dense(graph: gs.Graph, node: gs.Node, linear: Linear) -> None:
    """Replace a dense layer, the MatMul `node` and the Add of its bias, by one Gemm in two dimensions."""
    build = Builder(graph, node.name)
    tensors = graph.tensors()
    operands = [_flat(build, node.inputs[0]), node.inputs[1]] + ([tensors[linear.bias]] if linear.bias else [])
    _write_back(build, tensors[linear.result], build.node("Gemm", "dense", operands))


def flatten_between(graph: gs.Graph, node: gs.Node) -> None:
    """Replace `node` by the same operator in two dimensions."""
    build = Builder(graph, node.name)
    operands = [_flat(build, tensor, node.outputs[0]) for tensor in node.inputs]
    _write_back(build, node.outputs[0], build.node(node.op, "rows", operands, node.domain or "", **node.attrs))


def _flat(build: Builder, tensor: gs.Tensor, like: gs.Tensor | None = None) -> gs.Tensor:
    """`tensor` [batch, seq, width] as [batch * seq, width]; a tensor of fewer dimensions as it is.

    like: a tensor [batch, seq, width]; a constant [1, seq, width] is repeated to its batch and length first.
    """
    if _rank(tensor) != 3:
        return tensor
    rows = _rows(tensor)
    if rows is not None:
        return rows
    values = constant(tensor)
    if values is not None and like is not None:
        values = np.broadcast_to(values, (*like.shape[:2], values.shape[2]))
        return build.constant("rows", np.ascontiguousarray(values.reshape(-1, values.shape[2])))
    sizes = np.array([math.prod(tensor.shape[:2]), tensor.shape[2]], np.int64)
    return build.node("Reshape", "rows", [tensor, build.constant("sizes", sizes)])


def _rows(tensor: gs.Tensor) -> gs.Tensor | None:
    """The tensor [batch * seq, width] that a Reshape made `tensor` [batch, seq, width] of; None when none did."""
    above = producer(tensor)
    flat = above.inputs[0] if above is not None and above.op == "Reshape" and _rank(tensor) == 3 else None
    is_view = flat is not None and list(flat.shape or ()) == [math.prod(tensor.shape[:2]), tensor.shape[2]]
    return flat if is_view else None


def _write_back(build: Builder, old: gs.Tensor, flat: gs.Tensor) -> None:
    """Let the readers of `old` [batch, seq, width] read a view of `flat`."""
    if not has_fixed_shape(old):
        raise PassError(f"dense-2d: the shape of tensor {old.name!r} is not known; run fix-shapes before")
    sizes = list(old.shape)
    flat.shape = [math.prod(sizes[:2]), sizes[2]]
    view = build.node("Reshape", "tokens", [flat, build.constant("sizes", np.array(sizes, np.int64))])
    view.shape = sizes
    redirect(build.graph, old, view)


def join_reshapes(model: Model) -> None:
    """Replace Reshapes that follow one another by one, or by none where the last restores the first one's shape."""
    infer_shapes(model)
    sort_nodes(model.graph)
    for node in model.graph.nodes:
        above = producer(node.inputs[0]) if node.op in RESHAPES else None
        if above is None or above.op not in RESHAPES or not has_fixed_shape(node.outputs[0]):
            continue
        sizes = Builder(model.graph, node.name).constant("sizes", np.array(node.outputs[0].shape, np.int64))
        source = above.inputs[0]
        node.op, node.attrs = "Reshape", {}
        node.inputs.clear()
        node.inputs.extend([source, sizes])
    bypass_same_shape(model.graph)
    tidy(model)
    infer_shapes(model)


def _rank(tensor: gs.Tensor) -> int | None:
    return len(tensor.shape) if has_fixed_shape(tensor) else None
