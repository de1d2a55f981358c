"""The inputs of a session: their element types, and the batch and length that their shapes fix."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime as ort

# ONNX Runtime's names of the element types that encoders take.
DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
}


def input_dtypes(session: "ort.InferenceSession") -> dict[str, np.dtype[Any]]:
    """Element type of every graph input, in the graph's order."""
    unknown = [f"{i.name} is {i.type}" for i in session.get_inputs() if i.type not in DTYPES]
    if unknown:
        raise ModelError(f"cannot feed input {unknown[0]}: an encoder takes {', '.join(DTYPES)}")
    return {i.name: DTYPES[i.type] for i in session.get_inputs()}


def fixed_shape(session: "ort.InferenceSession") -> tuple[int | None, int | None]:
    """(batch, length) of the rank-2 inputs (`flat_shape`), None where the graph leaves it open."""
    return fixed_axes(flat_shape(i.shape, DTYPES.get(i.type)) for i in session.get_inputs())


def flat_shape(shape: Sequence[Any], dtype: Any) -> Sequence[Any]:
    """The shape of an input with the choices of [batch, choices, tokens] as rows; any other as it is.

    Only integers are choices: three axes of numbers are an image or a sound. Where the graph fixes the choices, so many
    rows are one batch; where it leaves them open, each row is fed as the one choice of its own.
    Example: [batch, 4, 128] is [4, 128], [batch, choices, 128] is [batch, 128].
    """
    if len(shape) != 3 or dtype is None or np.dtype(dtype).kind not in "iub":
        return shape
    batch, choices, length = shape
    if not isinstance(choices, int):
        return batch, length
    return choices * (batch if isinstance(batch, int) else 1), length


def fed_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller feeds: older files, of IR versions below 4, list their weights among the inputs, too."""
    weights = {weight.name for weight in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def declared_axes(graph: onnx.GraphProto) -> tuple[int | None, int | None]:
    """(batch, length) that the inputs of a file fix, as `fixed_shape`."""
    tensors = [value.type.tensor_type for value in fed_inputs(graph)]
    shapes = [([axis.dim_value or None for axis in t.shape.dim], t.elem_type) for t in tensors]
    return fixed_axes(flat_shape(shape, onnx.helper.tensor_dtype_to_np_dtype(kind)) for shape, kind in shapes if kind)


def in_declared_rank(session: "ort.InferenceSession", feeds: Mapping[str, Array]) -> dict[str, Array]:
    """`feeds`, with rows [rows, tokens] as [batch, choices, tokens] where an input is declared so (`flat_shape`)."""
    given = dict(feeds)
    for taken in session.get_inputs():
        values = given.get(taken.name)
        if values is None or values.ndim != 2 or flat_shape(taken.shape, DTYPES.get(taken.type)) == taken.shape:
            continue
        choices = taken.shape[1] if isinstance(taken.shape[1], int) else 1
        if len(values) % choices == 0:  # else it does not run, and ONNX Runtime says so
            given[taken.name] = values.reshape(-1, choices, values.shape[1])
    return given


def fixed_axes(shapes: Iterable[Sequence[Any]]) -> tuple[int | None, int | None]:
    """(batch, length) that the rank-2 shapes fix; an open axis is a name or None."""
    pairs = [shape for shape in shapes if len(shape) == 2]
    batch, length = (next((pair[i] for pair in pairs if isinstance(pair[i], int)), None) for i in (0, 1))
    return batch, length
