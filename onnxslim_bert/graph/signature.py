"""The inputs of a session: their element types, and the batch and length that their shapes fix."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from onnxslim_bert.errors import ModelError

# ONNX Runtime's names of the element types that encoders take.
DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
}


def input_dtypes(session: ort.InferenceSession) -> dict[str, np.dtype[Any]]:
    """Element type of every graph input, in the graph's order."""
    unknown = [f"{i.name} is {i.type}" for i in session.get_inputs() if i.type not in DTYPES]
    if unknown:
        raise ModelError(f"cannot feed input {unknown[0]}: an encoder takes {', '.join(DTYPES)}")
    return {i.name: DTYPES[i.type] for i in session.get_inputs()}


def fixed_shape(session: ort.InferenceSession) -> tuple[int | None, int | None]:
    """(batch, length) of the rank-2 inputs, None where the graph leaves it open."""
    return fixed_axes(i.shape for i in session.get_inputs())


def fixed_axes(shapes: Iterable[Sequence[Any]]) -> tuple[int | None, int | None]:
    """(batch, length) that the rank-2 shapes fix; an open axis is a name or None."""
    pairs = [shape for shape in shapes if len(shape) == 2]
    batch, length = (next((pair[i] for pair in pairs if isinstance(pair[i], int)), None) for i in (0, 1))
    return batch, length
