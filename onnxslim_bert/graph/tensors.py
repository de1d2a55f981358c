"""Whether a tensor in a file holds the bytes that its shape and element type ask for."""

import math
from pathlib import Path

import onnx

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.words import shown

TYPES = {number: name for name, number in onnx.TensorProto.DataType.items() if number}
BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}  # packed; FLOAT6 takes a byte an element
STORED = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
MOST_DIGITS = 19  # of an offset or a length


def check_tensor(path: object, tensor: onnx.TensorProto, in_file: int = 0, *, initializer: bool = True) -> None:
    """Raise ModelError when the data of `tensor` do not fit its shape.

    in_file: how many bytes of its data were left in the model's file, instead of being read into `tensor`.
    initializer: False for a tensor in a node's attribute, whose data may not lie in another file. Of an initializer
    whose data lie in another file, only the place is checked here, the size where they are read.
    """
    place = f"{path}: {'initializer' if initializer else 'constant'} {shown(tensor.name)}"
    if tensor.data_type not in TYPES:
        raise ModelError(f"{place} has element type {tensor.data_type}, which ONNX does not know")
    if any(size < 0 for size in tensor.dims) or len(tensor.dims) > 32:
        raise ModelError(f"{place} has the impossible shape {list(tensor.dims)[:33]}")
    if tensor.HasField("segment"):
        raise ModelError(f"{place} is a segment of another; store it as a whole")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        if not initializer:
            raise ModelError(f"{place} of a node has its data in another file; store them in the model")
        check_location(path, tensor)
        return
    kind, count = TYPES[tensor.data_type], math.prod(tensor.dims)
    if len(tensor.dims) > 1 and not count:
        raise ModelError(f"{place} has no values: its shape is {list(tensor.dims)}")
    held = {name: len(getattr(tensor, name)) for name in STORED if len(getattr(tensor, name))}
    raw = in_file or len(tensor.raw_data)
    if raw and not held:
        needed = stored_bytes(tensor.data_type, count)
        if kind == "STRING" or raw != needed:
            stated = f"shape {list(tensor.dims)} of {onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)}"
            raise ModelError(f"{place} holds {raw} bytes where {stated} needs {needed}")
        return
    field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    needed = count * 2 if kind.startswith("COMPLEX") else math.ceil(count * BITS.get(kind, 8) / 8)
    if raw or held != ({field: needed} if needed else {}):
        stated = f"shape {list(tensor.dims)} of {kind} needs {needed}"
        raise ModelError(f"{place} holds {sum(held.values())} values where {stated}")


def check_location(path: object, tensor: onnx.TensorProto) -> None:
    """Raise ModelError when a tensor's data are said to lie outside the model's folder, or at no place in a file."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, place = entries.get("location", ""), f"{path}: external data of {shown(tensor.name)}"
    if not location or "\0" in location or len(location) > 4096 or Path(location).is_absolute():
        raise ModelError(f"{place} is at {shown(location)}, outside the model's folder")
    if not _is_beside(Path(str(path)), location):
        raise ModelError(f"{place} is at {shown(location)}, outside the model's folder")
    for key in ("offset", "length"):
        value = entries.get(key, "0")
        if not (value.isascii() and value.isdigit() and len(value) <= MOST_DIGITS):
            raise ModelError(f"{place} does not fit {shown(location)} ({key} {shown(value)})")


def _is_beside(model: Path, location: str) -> bool:
    """Whether a file that a model names lies in the model's folder, links followed.

    Where both are links, as in the cache of the Hugging Face hub, the folder is that to which the model's link leads.
    """
    folder = model.parent.resolve()
    try:
        data, real = (folder / location).resolve(), model.resolve().parent
    except (OSError, RuntimeError):
        return False
    linked = model.is_symlink() and ".." not in Path(location).parts and data.parent == real
    return data.is_relative_to(folder) or linked


def stored_bytes(data_type: int, count: int) -> int:
    """The size of `count` elements, packed where the type is smaller than a byte."""
    name = TYPES[data_type]
    if name in BITS:
        return math.ceil(count * BITS[name] / 8)
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)
