"""Types and shapes of a graph's tensors, as ONNX shape inference finds them."""

import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.edit import is_output
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.model.onnx_model import Model


def infer_shapes(model: Model) -> list[str]:
    """Write the inferred type and shape on every tensor; returns the names of those without a fixed shape.

    The file's value_info is made of them, which tools that place nodes on phones read. What depends on values (NonZero)
    has no fixed shape, and what com.microsoft operators give is not inferred. Shapes hold until a rewrite that changes
    a width. Raises ModelError when two of them contradict each other.
    """
    tensors = [t for t in model.graph.tensors().values() if not isinstance(t, gs.Constant)]
    written = [t for t in tensors if t.inputs]
    for tensor in written:
        if not is_output(model.graph, tensor):  # which keep what the file declares where nothing is inferred
            tensor.shape = tensor.dtype = None
    skeleton, _ = model.skeleton()
    try:
        graph = onnx.shape_inference.infer_shapes(skeleton, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"shapes of the graph contradict each other: {in_words(error)}") from error
    found = {value.name: value.type.tensor_type for value in [*graph.value_info, *graph.output]}
    for tensor in written:
        kind = found.get(tensor.name, onnx.TypeProto.Tensor())
        if kind.elem_type:
            tensor.dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if kind.HasField("shape"):
            tensor.shape = [size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim]
    return [tensor.name for tensor in tensors if not has_fixed_shape(tensor)]


def renew_shapes(model: Model) -> None:
    """Write types and shapes anew after a rewrite, when the shapes of the inputs are fixed."""
    if all(has_fixed_shape(tensor) for tensor in model.graph.inputs):
        infer_shapes(model)


def has_fixed_shape(tensor: gs.Tensor) -> bool:
    """Whether every dimension of `tensor` is known."""
    return tensor.shape is not None and all(isinstance(size, int) for size in tensor.shape)
