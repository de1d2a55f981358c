"""The values of initializers that are kept beside the model file, in ONNX's external data."""

import math
from pathlib import Path

import numpy as np
import onnx

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph import wire
from onnxslim_bert.graph.tensors import stored_bytes


def external_values(tensor: onnx.TensorProto, model: Path) -> Array:
    """The values of an initializer of `model` whose data is in another file, memory-mapped; its own type and shape.

    `boundary` found that file to lie inside the model's folder. Raises ModelError when it is missing or too short, or
    when the declared length is not that of the tensor.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries["location"]
    file = model.parent.resolve() / location
    if not file.is_file():
        raise ModelError(f"{model}: external data of {tensor.name!r} is missing: no file {location!r} beside the model")
    dtype, count = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type), math.prod(tensor.dims)
    needed = stored_bytes(tensor.data_type, count)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(needed)))
        if length != needed or offset + length > file.stat().st_size:
            raise ValueError(f"{length} bytes declared, {needed} needed")
        if not count:
            return np.empty(tuple(tensor.dims), dtype)
        values, _ = wire.mapped(file, offset, needed)
    except (ValueError, OSError) as error:
        raise ModelError(f"{model}: external data of {tensor.name!r} does not fit {location!r} ({error})") from error
    return wire.unpacked(tensor, values)
