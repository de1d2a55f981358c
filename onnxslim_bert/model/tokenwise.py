"""Nodes that treat every token by itself."""

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.linear import is_linear

OPERATORS = frozenset(
    [
        "LayerNormalization",
        "Add",
        "Sum",
        "Sub",
        "Mul",
        "Div",
        "Gelu",
        "FastGelu",
        "QuickGelu",
        "Relu",
        "Tanh",
        "Erf",
        "Pow",
        "Sqrt",
        "Sigmoid",
        "Clip",
        "Cast",
        "Identity",
        "QuantizeLinear",
        "DequantizeLinear",
    ]
)


def is_tokenwise(node: gs.Node) -> bool:
    """Whether position i of the result depends on position i of the inputs only; inputs are [..., channels]."""
    by_constant = len(node.inputs) > 1 and constant(node.inputs[1]) is not None
    on_channels = by_constant and (node.op == "MatMul" or (node.op == "Gather" and node.attrs.get("axis", 0) == -1))
    return node.op in OPERATORS or on_channels or (is_linear(node) and node.op != "Gemm")
