"""Root-mean-square norms as ONNX Runtime fuses them, in an opset of no standard: x / sqrt(mean(x²) + epsilon) * gamma.

A file that its session saved holds SimplifiedLayerNormalization, which ONNX Runtime alone knows.
Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467
"""

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder, redirect, sort_nodes
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.windows import reduce

NORM, SKIP_NORM = "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"
STANDARD_DEVIATION = 1  # the output that no encoder reads
TOTAL = 3  # the output of SKIP_NORM that is the sum


def spell_rms_norms(graph: gs.Graph) -> int:
    """Write each norm over the last axis as the operators that it stands for; returns how many were rewritten."""
    found = [node for node in graph.nodes if node.op in (NORM, SKIP_NORM) and _is_over_last_axis(node)]
    for node in found:
        build, (x, *given) = Builder(graph, node.name or node.outputs[0].name), list(node.inputs)
        if node.op == SKIP_NORM:
            skip, *given = given
            for other in [skip, *(bias for bias in given[1:] if not bias.is_empty())]:
                x = build.node("Add", "sum", [x, other])
        outputs = list(node.outputs)
        node.inputs.clear()
        node.outputs.clear()
        if len(outputs) > TOTAL and not outputs[TOTAL].is_empty():
            redirect(graph, outputs[TOTAL], x)
        redirect(graph, outputs[0], _normed(build, x, given[0], float(node.attrs.get("epsilon", 1e-5))))
    if found:
        graph.nodes[:] = [node for node in graph.nodes if node.outputs]
        sort_nodes(graph)
    return len(found)


def _is_over_last_axis(node: gs.Node) -> bool:
    deviation = node.outputs[STANDARD_DEVIATION : STANDARD_DEVIATION + 2]
    gamma = constant(node.inputs[2 if node.op == SKIP_NORM else 1])
    plain = gamma is not None and gamma.ndim == 1 and node.attrs.get("axis", -1) in (-1, 2)
    return plain and not any(tensor.outputs for tensor in deviation if not tensor.is_empty())


def _normed(build: Builder, x: gs.Tensor, gamma: gs.Tensor, epsilon: float) -> gs.Tensor:
    half = gamma.values.dtype == np.float16  # whose squares overflow
    wide = build.node("Cast", "wide", [x], to=onnx.TensorProto.FLOAT) if half else x
    square = build.node("Pow", "square", [wide, build.constant("two", np.array(2, np.float32))])
    mean = reduce(build, "ReduceMean", "mean", square, -1)
    shifted = build.node("Add", "shifted", [mean, build.constant("epsilon", np.array(epsilon, np.float32))])
    result = build.node("Div", "normed", [wide, build.node("Sqrt", "root", [shifted])])
    result = build.node("Cast", "narrow", [result], to=onnx.TensorProto.FLOAT16) if half else result
    return build.node("Mul", "scaled", [result, gamma])
