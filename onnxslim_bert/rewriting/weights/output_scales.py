"""Scales between a dense layer and the residual stream become part of the layer's matrix and bias."""

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.linear import Linear, is_linear, read_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.pruning.surgery import matrix, set_dense


def fold_output_scales(model: Model) -> int:
    """Fold each constant factor of what a float32 layer adds to a sum: s (x @ weight + bias) = x @ (s weight) + s bias.

    s is one number, or one a channel (LayerScale). A matrix that several nodes read stays as it is. Returns how many
    were folded.

    Touvron et al. 2021, https://arxiv.org/abs/2103.17239
    """
    count, tensors, build = 0, model.graph.tensors(), Builder(model.graph, "")
    for node in [node for node in model.graph.nodes if is_linear(node)]:
        linear = read_linear(node)
        weight, result = tensors[linear.weight], tensors[linear.result]
        if linear.quantized or weight.values.dtype != np.float32 or len(weight.outputs) != 1:
            continue
        scale = _scale(linear, result)
        if scale is None:
            continue
        bias = None if linear.bias is None else model.array(linear.bias) * scale
        redirect(model.graph, result.outputs[0].outputs[0], result)
        set_dense(model, build, linear, matrix(model, linear) * scale, bias)
        count += 1
    if count:
        model.changed()
    return count


def _scale(linear: Linear, result: gs.Tensor) -> Array | None:
    """What the result is multiplied with before it is added to something, [d_out] or []; None where that is not so."""
    node = result.outputs[0] if len(result.outputs) == 1 else None
    if node is None or node.op != "Mul" or any(reader.op not in ("Add", "Sum") for reader in node.outputs[0].outputs):
        return None
    values = next((constant(tensor) for tensor in node.inputs if tensor is not result), None)
    if values is None or values.dtype != np.float32 or values.size not in (1, linear.d_out):
        return None
    is_of_channels = values.size == 1 or values.shape[-1] == linear.d_out
    return values.reshape(-1 if values.size > 1 else ()) if is_of_channels else None
