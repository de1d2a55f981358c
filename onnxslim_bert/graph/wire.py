"""An ONNX file as a small skeleton plus weights that stay in the file, memory-mapped.

Parsing a 435 MB model into protobuf objects holds the weights two or three times. Only the bytes of its large
initializers are large, so this module walks the protobuf wire format once, leaves those bytes where they are, and lets
protobuf parse the rest; and it writes a file the same way back, the weights going straight into it
(https://protobuf.dev/programming-guides/encoding, field numbers from onnx/onnx.proto).
"""

import contextlib
import mmap
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import onnx.numpy_helper

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.boundary import MOST_INITIALIZERS, check_model
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.graph.schemas import ONNX
from onnxslim_bert.graph.tensors import BITS

MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA = 7, 5, 9
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
STAYS_IN_FILE = 1024  # bytes from which an initializer's data is mapped instead of parsed
ALIGNED = 4096  # bytes: weights in a file of their own begin at a page, so that a session maps them
KEPT, KEPT_BYTES = 4, 1 << 24  # skeletons that are kept, since a command reads a file many times; bytes of the largest
TICK = 20_000_000  # nanoseconds in which two changes of a file may get one time: so new a file is read again
NUMBERS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
MOST_PARTS = 20 * MOST_INITIALIZERS  # nodes, initializers, and shapes of tensors in between

_Known = tuple[onnx.ModelProto, Mapping[int, tuple[int, int]]]
_KNOWN: dict[tuple[Path, tuple[int, ...]], _Known] = {}  # by place, on which external data depends, and state


class Mapped(NamedTuple):
    """Bytes of a file in memory, from `offset` on at `address`; state: of the file when it was mapped."""

    file: Path
    offset: int
    address: int
    state: tuple[int, ...]

    def is_there(self) -> bool:
        """Whether the file still has its name, and is as it was."""
        with contextlib.suppress(OSError):
            return self.state == _state(self.file.stat())
        return False


_MAPPED: WeakKeyDictionary[mmap.mmap, Mapped] = WeakKeyDictionary()


class Field(NamedTuple):
    """One field of a message: bytes [start, end) of the file, its payload beginning at `body`."""

    number: int
    wire_type: int
    start: int
    body: int
    end: int


def release(weights: Iterable[Array]) -> None:
    """Give back the memory of mapped weights; the next reader finds them in the file again."""
    for mapping in {id(m): m for m in map(_mapping, weights) if m is not None}.values():
        if hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


def place(values: Array) -> tuple[Path, int] | None:
    """The file and the offset at which all bytes of an array lie in order; None for one that lies in memory alone.

    None, too, where the file is no longer the one that was mapped.
    """
    mapping = _mapping(values)
    whole = None if mapping is None else _MAPPED.get(mapping)
    if whole is None or not values.flags.c_contiguous or not whole.is_there():
        return None
    return whole.file, whole.offset + values.ctypes.data - whole.address


def mapped(path: Path, offset: int = 0, nbytes: int | None = None) -> tuple[Array, Mapped]:
    """The bytes of a file from `offset`, all or `nbytes`, read-only. Raises OSError, and ValueError for too few."""
    path = path.resolve()
    with path.open("rb") as file:
        values = np.memmap(file, np.uint8, "r", offset, nbytes)
        whole = Mapped(path, offset, values.ctypes.data, _state(os.fstat(file.fileno())))
    if (mapping := _mapping(values)) is not None:
        _MAPPED[mapping] = whole
    return values, whole


def _state(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _mapping(values: Array) -> mmap.mmap | None:
    base: object = values
    while isinstance(base, np.ndarray):
        base = base.base
    owner = base.obj if isinstance(base, memoryview) else base
    return owner if isinstance(owner, mmap.mmap) else None


def read_skeleton(path: Path) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model without its large weights, and those weights by initializer name, read-only views of the file.

    Raises ModelError when the file is missing, empty, truncated or not ONNX, or fails the checks of `boundary.py`.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
        raise ModelError(f"{path}: {found}; an ONNX model was needed")
    try:
        (data, whole), now = mapped(path), time.time_ns()
    except ValueError as error:
        raise ModelError(f"{path}: the file is empty; an ONNX model was needed") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    key = path.absolute(), whole.state
    skeleton, places = _KNOWN.get(key) or _checked(path, data.data)
    if skeleton.ByteSize() <= KEPT_BYTES and now - whole.state[-1] > TICK:
        _KNOWN[key] = skeleton, places
        while len(_KNOWN) > KEPT:
            _KNOWN.pop(next(iter(_KNOWN)), None)
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    tensors = model.graph.initializer
    return model, {tensors[i].name: unpacked(tensors[i], data[a:b]) for i, (a, b) in places.items()}


def _checked(path: Path, data: memoryview) -> tuple[onnx.ModelProto, Mapping[int, tuple[int, int]]]:
    """The skeleton of a file's bytes, checked, and where its large weights lie, by the initializer's position."""
    try:
        skeleton, places = _without_large_weights(data)
        model = onnx.ModelProto.FromString(skeleton)
    except Exception as error:  # protobuf's DecodeError has no stable import path
        said = in_words(error)
        raise ModelError(f"{path}: not a complete ONNX file ({said}); it may be truncated, export it again") from error
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX model, or one without nodes")
    check_model(path, model, {position: end - start for position, (start, end) in places.items()})
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        _in_one_form(nodes)
    return model, places


def _in_one_form(nodes: Iterable[onnx.NodeProto]) -> None:
    """Write ONNX's own domain as "", for which a file may say "ai.onnx", and numbers of constants as tensors."""
    for node in nodes:
        if node.domain == ONNX:
            node.domain = ""
        for attribute in node.attribute:
            _in_one_form(attribute.g.node)
            if node.op_type == "Constant" and attribute.name in NUMBERS:
                values = np.array(onnx.helper.get_attribute_value(attribute), NUMBERS[attribute.name])
                attribute.CopyFrom(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(values)))


def serialized(skeleton: onnx.ModelProto, weights: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    """The bytes of a model file, piece by piece: `skeleton`, with `weights` as the data of initializers, by name."""
    model, graph = onnx.ModelProto(), onnx.GraphProto()
    model.CopyFrom(skeleton)
    graph.CopyFrom(skeleton.graph)
    model.ClearField("graph")
    del graph.initializer[:]
    graph.initializer.extend(tensor for tensor in skeleton.graph.initializer if tensor.name not in weights)
    rest = graph.SerializeToString(deterministic=True)
    heads = {tensor.name: _head(tensor, weights) for tensor in skeleton.graph.initializer if tensor.name in weights}
    size = len(rest) + sum(len(head) + weights[name].nbytes for name, head in heads.items())
    yield model.SerializeToString(deterministic=True)
    yield _start(MODEL_GRAPH, size) + rest
    for name, head in heads.items():
        yield head
        yield np.ascontiguousarray(weights[name]).reshape(-1).view(np.uint8).data


def data_file(path: Path) -> Path:
    """Where the weights of the model at `path` lie when one file cannot hold them."""
    return path.with_name(f"{path.name}.data")


def laid_out(skeleton: onnx.ModelProto, weights: Mapping[str, Array], location: str) -> Iterator[bytes | memoryview]:
    """The bytes of an external data file that holds `weights`, piece by piece.

    Changes `skeleton`: each of these initializers then names the file, `location`, and its offset and length in it.
    """
    position = 0
    for tensor in skeleton.graph.initializer:
        if tensor.name not in weights:
            continue
        padding, nbytes = -position % ALIGNED, weights[tensor.name].nbytes
        del tensor.external_data[:]
        tensor.external_data.extend(external(location, position + padding, nbytes))
        yield bytes(padding)
        yield np.ascontiguousarray(weights[tensor.name]).reshape(-1).view(np.uint8).data
        position += padding + nbytes


def external(location: str, offset: int, nbytes: int) -> list[onnx.StringStringEntryProto]:
    """The entries of an initializer whose data lie at `offset` of the file `location`, beside the model."""
    entries = {"location": location, "offset": str(offset), "length": str(nbytes)}
    return [onnx.StringStringEntryProto(key=key, value=value) for key, value in entries.items()]


def _head(tensor: onnx.TensorProto, weights: Mapping[str, Array]) -> bytes:
    """An initializer of a graph up to its data."""
    nbytes = weights[tensor.name].nbytes
    named = onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    body: bytes = named.SerializeToString(deterministic=True) + _start(TENSOR_RAW_DATA, nbytes)
    return _start(GRAPH_INITIALIZER, len(body) + nbytes) + body


def _without_large_weights(data: memoryview) -> tuple[bytes, dict[int, tuple[int, int]]]:
    """The file's bytes less the large raw data, and where that data lies, by the initializer's position."""
    kept: list[bytes] = []
    places: dict[int, tuple[int, int]] = {}
    position = 0
    for field in _fields(data, 0, len(data)):
        if field.number != MODEL_GRAPH or field.wire_type != BYTES:
            kept.append(bytes(data[field.start : field.end]))
            continue
        graph: list[bytes] = []
        for count, part in enumerate(_fields(data, field.body, field.end)):
            if count > MOST_PARTS:
                raise ValueError(f"a graph of more than {MOST_PARTS:,} parts")
            is_small = part.end - part.body < STAYS_IN_FILE
            if part.number != GRAPH_INITIALIZER or is_small:
                graph.append(bytes(data[part.start : part.end]))
                position += part.number == GRAPH_INITIALIZER
                continue
            tensor: list[bytes] = []
            for item in _fields(data, part.body, part.end):
                if item.number == TENSOR_RAW_DATA and item.end - item.body >= STAYS_IN_FILE:
                    places[position] = (item.body, item.end)
                else:
                    tensor.append(bytes(data[item.start : item.end]))
            graph.append(_message(GRAPH_INITIALIZER, b"".join(tensor)))
            position += 1
        kept.append(_message(MODEL_GRAPH, b"".join(graph)))
    return b"".join(kept), places


def _fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """The fields of the message at [start, end), in order."""
    while start < end:
        key, body = _varint(data, start, end)
        wire_type = key & 7
        if wire_type == VARINT:
            _, stop = _varint(data, body, end)
        elif wire_type == BYTES:
            length, body = _varint(data, body, end)
            stop = body + length
        elif wire_type in (FIXED32, FIXED64):
            stop = body + (4 if wire_type == FIXED32 else 8)
        else:
            raise ValueError(f"unknown wire type {wire_type} at byte {start}")
        if stop > end:
            raise ValueError(f"the data ends at byte {end} where byte {stop} was needed")
        yield Field(key >> 3, wire_type, start, body, stop)
        start = stop


def _varint(data: memoryview, start: int, end: int) -> tuple[int, int]:
    """The base-128 integer at `start` and the position after it."""
    if start < end and data[start] < 0x80:  # most are one byte long
        return data[start], start + 1
    value = 0
    for shift in range(0, 70, 7):
        if start >= end:
            break
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
    raise ValueError(f"broken integer at byte {start}")


def _message(number: int, body: bytes) -> bytes:
    return _start(number, len(body)) + body


def _start(number: int, size: int) -> bytes:
    return bytes([number << 3 | BYTES]) + _encoded(size)


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def unpacked(tensor: onnx.TensorProto, raw: Array) -> Array:
    """The values of an initializer whose data are the bytes `raw`, so many as it needs: a view of them, or a copy where
    two or four values share a byte.
    """
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if onnx.TensorProto.DataType.Name(tensor.data_type) in BITS:
        whole = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=raw.tobytes())
        values: Array = onnx.numpy_helper.to_array(whole)
        return values
    return raw.view(np.ndarray).view(dtype).reshape(tuple(tensor.dims))
