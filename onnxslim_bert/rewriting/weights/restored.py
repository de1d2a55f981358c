"""Weights that a graph restores from fewer bits as it runs, as the float32 weights that it restores."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import constant, opsets_of, producer, run
from onnxslim_bert.model.onnx_model import Model

AT_ONCE = 512  # rows of the identity
# what rounds activations to integers; behind one, a weight alone in float32 makes no float32 product
ROUNDING = frozenset(["QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "QAttention"])


def restores(model: Model) -> bool:
    """Whether weights are stored in fewer bits and only restored, activations staying in floating point."""
    nodes = model.graph.nodes
    return any(_is_restoring(node) for node in nodes) and not any(node.op in ROUNDING for node in nodes)


def restore(model: Model) -> int:
    """Put the float32 weight in place of every matrix of bits in blocks, and of every integer table or matrix that a
    DequantizeLinear restores; returns of how many. What a node restores is found by running it.

    Raises ValueError for a node that ONNX Runtime cannot run.
    """
    build, opsets = Builder(model.graph, "restored"), opsets_of(model.graph)
    nodes = [node for node in model.graph.nodes if _is_restoring(node)]
    for node in nodes:
        if node.op == "MatMulNBits":
            _as_product(node, build, opsets)
            continue
        lookup = _lookup(node)
        table = lookup.inputs[0] if lookup is not None else node.inputs[0]
        alone = gs.Node(node.op, "alone", node.attrs, [table, *node.inputs[1:]], [gs.Variable("y")], domain=node.domain)
        weight = build.constant(node.name, run([alone], {}, alone.outputs[0], opsets).astype(np.float32))
        if lookup is not None:
            rows = gs.Variable(build.unique(f"{node.name}/rows"), np.dtype(np.float32))
            model.graph.nodes.append(gs.Node("Gather", rows.name, lookup.attrs, [weight, lookup.inputs[1]], [rows]))
        redirect(model.graph, node.outputs[0], weight if lookup is None else rows)
        node.outputs.clear()
    model.graph.nodes = [node for node in model.graph.nodes if node.outputs]
    model.changed()
    return len(nodes)


def _is_restoring(node: gs.Node) -> bool:
    """A product with packed bits, or what restores a constant of two axes or more, or rows that were read of one."""
    if node.op != "DequantizeLinear":
        return bool(node.op == "MatMulNBits")
    values = constant(node.inputs[0])
    return _lookup(node) is not None or (values is not None and values.ndim > 1)


def _lookup(node: gs.Node) -> gs.Node | None:
    """The Gather of rows of a constant table that `node` restores by one scale for all; None where there is none."""
    lookup, scale = producer(node.inputs[0]), constant(node.inputs[1])
    if (
        lookup is None
        or lookup.op != "Gather"
        or constant(lookup.inputs[0]) is None
        or scale is None
        or scale.size != 1
    ):
        return None
    return lookup


def _as_product(node: gs.Node, build: Builder, opsets: list[onnx.OperatorSetIdProto]) -> None:
    """A MatMulNBits as the MatMul that it stands for, with its bias behind it.

    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#commicrosoftmatmulnbits
    """
    packed, bias = node.inputs[1:5], node.inputs[5] if len(node.inputs) > 5 else None
    size = int(node.attrs["K"])
    x, y = gs.Variable("x", np.dtype(np.float32)), gs.Variable("y")
    exact = {name: value for name, value in node.attrs.items() if name != "accuracy_level"}  # no rounding of the rows
    alone = gs.Node(node.op, "alone", exact, [x, *packed], [y], domain=node.domain)
    parts = [np.eye(min(AT_ONCE, size - row), size, row, np.float32) for row in range(0, size, AT_ONCE)]
    weight: Array = np.concatenate([run([alone], {"x": part}, y, opsets) for part in parts])
    node.op, node.domain, node.attrs = "MatMul", None, {}
    node.inputs = [node.inputs[0], build.constant(node.name, weight)]
    if bias is not None and not bias.is_empty():
        result, product = node.outputs[0], gs.Variable(build.unique(f"{node.name}/product"))
        node.outputs = [product]
        build.graph.nodes.append(gs.Node("Add", build.unique(f"{node.name}/bias"), {}, [product, bias], [result]))
