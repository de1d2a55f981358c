"""Whether an encoder normalizes before or after its residual sums."""

from typing import Literal

import onnx_graphsurgeon as gs

from onnxslim_bert.model.onnx_model import Model

COPIES = frozenset(("Slice", "Gather", "Reshape", "Squeeze", "QuantizeLinear", "DequantizeLinear", "Cast"))

NormStyle = Literal["pre-norm", "post-norm"]


def norm_style(model: Model) -> NormStyle | None:
    """Whether a fused model normalizes before or after its residual sums; None when no norm was recognised."""
    if not any(node.op == "LayerNormalization" for node in model.graph.nodes):
        return None
    return "pre-norm" if pre_norms(model) else "post-norm"


def pre_norms(model: Model) -> dict[int, str]:
    """The norms in front of matrices (pre-norm): {id of the norm: name of the first dense layer that reads it}.

    Such a norm is read by matrices of an encoder layer and by no residual sum.
    """
    readers: dict[str, str] = {}
    for layer in model.encoder.layers:
        for linear in layer.linears.values():
            readers.setdefault(linear.source, linear.node)
    return {
        id(node): readers[node.outputs[0].name]
        for node in model.graph.nodes
        if node.op == "LayerNormalization" and node.outputs[0].name in readers and not _feeds_residual(node.outputs[0])
    }


def _feeds_residual(tensor: gs.Tensor) -> bool:
    """Whether a sum reads `tensor`, itself or through nodes that copy, reshape or quantize it."""
    return any(
        node.op in ("Add", "Sum") or (node.op in COPIES and _feeds_residual(node.outputs[0])) for node in tensor.outputs
    )
