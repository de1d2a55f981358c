"""Whether a graph is what ONNX takes: its checker and its type inference are asked, and no weight is read."""

from collections.abc import Mapping

import onnx

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.runtime_words import in_words


def check_valid(skeleton: onnx.ModelProto, weights: Mapping[str, Array]) -> None:
    """Raise ModelError when ONNX's checker refuses a graph, given as `Model.skeleton` does."""
    try:
        onnx.checker.check_model(_without_data(skeleton, weights))
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the rewritten graph is not valid ONNX: {in_words(error)}") from error


def check_types(skeleton: onnx.ModelProto, weights: Mapping[str, Array]) -> None:
    """Raise ModelError when a node reads a type that its operator does not take, as ONNX's type inference sees it."""
    try:
        onnx.shape_inference.infer_shapes(_without_data(skeleton, weights), check_type=True)
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"types do not agree: {in_words(error)}") from error


def _without_data(skeleton: onnx.ModelProto, weights: Mapping[str, Array]) -> onnx.ModelProto:
    """The same graph for the checker, which would look for external data: its weights are inputs."""
    checked = onnx.ModelProto()
    checked.CopyFrom(skeleton)
    del checked.graph.initializer[:]
    for tensor in skeleton.graph.initializer:
        if tensor.name in weights:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            checked.graph.input.append(value)
        else:
            checked.graph.initializer.append(tensor)
    return checked
