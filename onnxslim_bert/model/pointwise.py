"""Convolutions over one token at a time are dense layers: SqueezeBERT's, and the pointwise half of separable ones."""

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import constant

TURN = [0, 2, 1]  # [batch, channels, seq] to [batch, seq, channels] and back


def spell_pointwise(graph: gs.Graph) -> int:
    """Write each convolution over one token, of [batch, channels, seq], as products; returns how many were rewritten.

    With several groups of channels there is a product for each (Iandola et al. 2020, https://arxiv.org/abs/2006.11316).
    """
    found = [(node, weight) for node in graph.nodes if (weight := _pointwise(node)) is not None]
    build = Builder(graph, "")
    for node, weight in found:
        build.prefix = node.name
        groups = int(node.attrs.get("group", 1))
        source = build.node("Transpose", "tokens", [node.inputs[0]], perm=TURN)
        parts = [source]
        if groups > 1:
            sizes = build.constant("sizes", np.full(groups, weight.shape[1], np.int64))
            parts = build.nodes("Split", "groups", [source, sizes], groups, axis=2)
        matrices = [np.ascontiguousarray(rows[:, :, 0].T) for rows in np.split(weight, groups)]
        products = [
            build.node("MatMul", "product", [part, build.constant("weight", matrix)])
            for part, matrix in zip(parts, matrices, strict=True)
        ]
        result = products[0] if groups == 1 else build.node("Concat", "together", list(products), axis=2)
        if len(node.inputs) > 2 and not node.inputs[2].is_empty():
            result = build.node("Add", "biased", [result, node.inputs[2]])
        old = node.outputs[0]
        node.inputs.clear()
        node.outputs.clear()
        redirect(graph, old, build.node("Transpose", "channels", [result], perm=TURN))
    return len(found)


def _pointwise(node: gs.Node) -> Array | None:
    """The weight [d_out, d_in / groups, 1] of a convolution with a kernel of one token; None for anything else."""
    weight = constant(node.inputs[1]) if node.op == "Conv" else None
    if weight is None or weight.ndim != 3 or weight.shape[2] != 1 or weight.shape[1] == 1:
        return None
    plain = not any(node.attrs.get("pads", ())) and set(node.attrs.get("strides", [1])) == {1}
    return weight if plain and node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID") else None
