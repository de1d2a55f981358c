"""Test vectors in the form of ONNX's own tests: one tensor in one file.

https://github.com/onnx/onnx/blob/main/docs/OnnxBackendTest.md
"""

import onnx
from onnx import numpy_helper

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import DataError
from onnxslim_bert.graph.runtime_words import in_words


def pack(name: str, values: Array) -> bytes:
    """The tensor `name` as the bytes of a TensorProto."""
    data: bytes = numpy_helper.from_array(values, name).SerializeToString()
    return data


def unpack(data: bytes, source: object) -> Array:
    """The values of a TensorProto, of which messages speak as `source`. Raises DataError; reads no other file."""
    try:
        tensor = onnx.TensorProto.FromString(data)
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError("its values are in another file")
        values: Array = numpy_helper.to_array(tensor)
    except Exception as error:  # protobuf's DecodeError has no stable import path
        raise DataError(f"{source} is no tensor ({in_words(error)}): needed a whole TensorProto") from error
    return values
