"""Of what type the elements of a tensor are, told from the nodes above it."""

import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant, producer

# Operators whose first result has the type of their first input, at every opset and for every type.
KEEPING = frozenset(
    [
        *(
            "Abs",
            "Add",
            "Clip",
            "Concat",
            "Cos",
            "CumSum",
            "Div",
            "Dropout",
            "Erf",
            "Exp",
            "Expand",
            "Flatten",
            "Gather",
        ),
        *("Gelu", "Gemm", "Identity", "LayerNormalization", "Log", "MatMul", "Max", "Min", "Mod", "Mul", "Neg", "Pad"),
        *("Pow", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Round"),
        *("Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile"),
        *("Transpose", "Unsqueeze"),
    ]
)
WHOLE = frozenset(["Shape", "Size", "NonZero", "ArgMax", "ArgMin"])  # int64, whatever they read
TRUTH = frozenset(["And", "Equal", "Greater", "GreaterOrEqual", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor"])


def element_type(tensor: gs.Tensor, known: dict[str, int | None]) -> int | None:
    """The number of the type in onnx.TensorProto; None where the nodes above do not tell it.

    known: what was found before in the same graph, by the tensor's name, which is added to.
    """
    passed = list[str]()
    while tensor.name not in known:
        passed.append(tensor.name)
        node, values = producer(tensor), constant(tensor)
        found: int | None = None
        if values is not None:
            found = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        elif node is None:
            found = tensor.dtype and onnx.helper.np_dtype_to_tensor_dtype(tensor.dtype)
        elif node.op == "Cast":
            found = node.attrs["to"]
        elif node.domain in ("", "ai.onnx", None) and node.op in WHOLE | TRUTH:
            found = onnx.TensorProto.INT64 if node.op in WHOLE else onnx.TensorProto.BOOL
        elif node.domain in ("", "ai.onnx", None) and node.op in KEEPING | {"Where"}:
            tensor = node.inputs[int(node.op == "Where")]
            continue
        break
    else:
        found = known[tensor.name]
    known.update(dict.fromkeys(passed, found))
    return found
