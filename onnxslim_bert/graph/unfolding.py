"""A limit on constant folding: nodes that depend on no input are computed once, and a few of them can make gigabytes.

The sizes of what they make are inferred before anything is computed, from shapes and from the values of small
constants, which Expand, Tile and others read.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.words import called

LEAST = 1 << 28  # bytes that constants may unfold to in any model
TIMES = 8  # and times the bytes of its weights
NO_LARGER = frozenset(  # operators whose output is no larger than their input
    (
        *("Constant", "Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Shape", "Slice"),
        *("Sqrt", "Neg", "Abs", "Exp", "Log", "Not", "Reciprocal", "Floor", "Ceil", "Erf", "Tanh", "Sigmoid", "Relu"),
        *("ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean", "Size", "DequantizeLinear", "QuantizeLinear"),
    )
)


def check_unfolding(
    path: Path | str, model: onnx.ModelProto, foldable: Iterable[onnx.NodeProto], in_file: Mapping[int, int]
) -> None:
    """Raise ModelError when the `foldable` nodes, which depend on constants alone, would make too many bytes.

    The limit is TIMES the bytes of the weights, and at least LEAST: 800 MB for weights of 100 MB, 268 MB for 10 MB.
    Every element that is made counts its bytes, 4 at most. in_file: bytes of initializers that were left in the file,
    by position.
    """
    nodes = list(foldable)
    names = {name: node for node in nodes for name in node.output if name}
    if all(node.op_type in NO_LARGER for node in nodes):
        return
    weights = 0
    sets = {entry.domain: entry for entry in model.opset_import}
    for domain in {node.domain for node in nodes}:  # one that is not imported would end inference
        sets.setdefault(domain, onnx.helper.make_opsetid(domain, 1))
    open_model = onnx.ModelProto(
        ir_version=onnx.IR_VERSION,  # before 4, inference wants weights among the inputs
        opset_import=sets.values(),
        functions=model.functions,
        graph=onnx.GraphProto(name="folded", node=nodes),
    )
    for position, tensor in enumerate(model.graph.initializer):
        if position in in_file or tensor.data_location == onnx.TensorProto.EXTERNAL:
            open_model.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
            weights += in_file.get(position, 0) or 4 * math.prod(tensor.dims)
        else:
            open_model.graph.initializer.append(tensor)
    try:
        # values are not propagated: inference would then hold every number of a constant made to be huge
        inferred = onnx.shape_inference.infer_shapes(open_model).graph
    except Exception:  # what inference refuses, ONNX Runtime will
        return
    limit, total = max(LEAST, TIMES * weights), 0
    for value in inferred.value_info:
        kind = value.type.tensor_type
        sizes = [dimension.dim_value if dimension.HasField("dim_value") else 1 for dimension in kind.shape.dim]
        if value.name in names and min(sizes, default=0) >= 0:
            total += _bytes(kind.elem_type) * math.prod(sizes)
        if total > limit:
            node = called(names[value.name])
            raise ModelError(f"{path}: {node} makes constants of {total / 1e6:,.0f} MB out of {weights / 1e6:,.1f} MB")


def _bytes(element: int) -> int:
    """Bytes that an element of this type counts."""
    return min(4, onnx.helper.tensor_dtype_to_np_dtype(element).itemsize) if element else 4
