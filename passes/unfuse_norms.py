"""Layer normalization in elementary operators."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import float_type
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import renew_shapes
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.wording import plural


@dataclass(frozen=True)
class UnfuseNorms(Pass):
    """Write LayerNormalization as means, differences and a square root, which NNAPI has. Within 1e-5.

    Squares are written as x * x, not with Pow: from opset 17 on ONNX Runtime recognises a norm with Pow and fuses it
    again before it asks a provider
    (https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/layer_norm_fusion.cc).
    """

    name: ClassVar[str] = "unfuse-norms"
    exact: ClassVar[float | None] = 1e-5
    empty_rows: ClassVar[bool] = True
    tokenwise: ClassVar[bool] = True

    def apply(self, model: Model, ctx: Context) -> Change:
        norms = [node for node in model.graph.nodes if is_last_axis_norm(node)]
        if half := next((node.name for node in norms if float_type(node.outputs[0]) == np.float16), None):
            raise PassError(f"unfuse-norms: {half!r} is float16, where squares overflow; start from the float32 model")
        for node in norms:
            redirect(model.graph, node.outputs[0], emit_norm(model.graph, node))
        if not norms:
            return Change(0, "the graph has no LayerNormalization over its last axis")
        model.changed()
        renew_shapes(model)
        return Change(len(norms), f"{plural(len(norms), 'norm')} written as elementary operators")


def is_last_axis_norm(node: gs.Node) -> bool:
    """Whether `node` normalizes the last axis and nothing reads its mean and deviation."""
    alone = not any(tensor.outputs for tensor in node.outputs[1:])
    return node.op == "LayerNormalization" and node.attrs.get("axis", -1) == -1 and alone


def emit_norm(graph: gs.Graph, node: gs.Node) -> gs.Tensor:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, as ONNX specifies LayerNormalization."""
    build = Builder(graph, node.name)
    x, gamma, *beta = node.inputs
    epsilon = build.constant("epsilon", np.array(node.attrs.get("epsilon", 1e-5), np.float32))
    centred = build.node("Sub", "centred", [x, _mean(build, "mean", x)])
    variance = _mean(build, "variance", build.node("Mul", "squares", [centred, centred]))
    deviation = build.node("Sqrt", "deviation", [build.node("Add", "above-zero", [variance, epsilon])])
    scaled = build.node("Mul", "scaled", [build.node("Div", "normal", [centred, deviation]), gamma])
    return build.node("Add", "shifted", [scaled, *beta]) if beta and not beta[0].is_empty() else scaled


def _mean(build: Builder, name: str, tensor: gs.Tensor) -> gs.Tensor:
    """The mean over the last axis, kept as an axis of one; from opset 18 on the axis is an input."""
    if build.graph.opset < 18:
        return build.node("ReduceMean", name, [tensor], axes=[-1], keepdims=1)
    return build.node("ReduceMean", name, [tensor, build.constant("axis", np.array([-1], np.int64))], keepdims=1)
