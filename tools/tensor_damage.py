"""Damage to tensors: their types, shapes, values and bytes, and where they are kept."""

import struct
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Rng = np.random.Generator
SIZES = (0, 1, -1, 2, 3, 7, 1 << 16, 1 << 31, 1 << 40, -(1 << 40), (1 << 63) - 1)
PLACES = ("tokenizer.json", "../x", "/etc/passwd", "a\0b", "", ".", "calib.tsv", "gone.bin", "link.bin", "pipe.bin")


def pick(items: Any, rng: Rng) -> Any:
    return items[int(rng.integers(len(items)))]


def _tensor(model: onnx.ModelProto, rng: Rng) -> TensorProto:
    """An initializer, or the value of a Constant."""
    values = [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]
    found: TensorProto = pick([*model.graph.initializer, *values], rng)
    return found


def tensor_type(model: onnx.ModelProto, rng: Rng) -> None:
    _tensor(model, rng).data_type = int(rng.integers(0, 30))


def tensor_dims(model: onnx.ModelProto, rng: Rng) -> None:
    tensor = _tensor(model, rng)
    if not tensor.dims or rng.random() < 0.3:
        tensor.dims.append(int(rng.choice(np.array(SIZES, dtype=object))))
    elif rng.random() < 0.3:
        turned = list(tensor.dims)[::-1]
        del tensor.dims[:]
        tensor.dims.extend(turned)
    else:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = int(rng.choice(np.array(SIZES, dtype=object)))


def tensor_shape(model: onnx.ModelProto, rng: Rng) -> None:
    """Fewer or more values, in a shape that says so."""
    tensor = _tensor(model, rng)
    values = numpy_helper.to_array(tensor)
    kind = int(rng.integers(4))
    flat = values.reshape(-1)
    made = (values[:0] if values.ndim else flat, values[None], flat[: 1 + flat.size // 2], np.tile(flat, 2))[kind]
    tensor.CopyFrom(numpy_helper.from_array(made, tensor.name))


def tensor_values(model: onnx.ModelProto, rng: Rng) -> None:
    tensor = _tensor(model, rng)
    values = numpy_helper.to_array(tensor).copy()
    if values.dtype.kind == "f":
        values.reshape(-1)[int(rng.integers(values.size))] = rng.choice([np.nan, np.inf, 0, 1e30, -1e-40])
    else:
        values.reshape(-1)[int(rng.integers(values.size))] = rng.choice([0, -1, 1, 2, 5, 127])
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def tensor_gone(model: onnx.ModelProto, rng: Rng) -> None:
    del model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]


def tensors_merged(model: onnx.ModelProto, rng: Rng) -> None:
    """Two initializers of one name."""
    pick(model.graph.initializer, rng).name = pick(model.graph.initializer, rng).name


def tensors_many(model: onnx.ModelProto, rng: Rng) -> None:
    for i in range(as_often(1000, 20_000, rng)):
        model.graph.initializer.append(
            TensorProto(name=f"many.{i}", data_type=1, dims=[1], raw_data=struct.pack("f", i))
        )


def as_often(least: int, most: int, rng: Rng) -> int:
    """A number from `least` to `most`, each power of ten as often as any other: large ones take all the time."""
    return int(least * float((most / least) ** rng.random()))


def external(model: onnx.ModelProto, rng: Rng) -> None:
    tensor = _tensor(model, rng)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {
        "location": str(rng.choice(PLACES)),
        "offset": str(rng.choice(["0", "-1", "9" * 30, "x", "4096", str(1 << 62)])),
        "length": str(rng.choice(["0", "-5", "12", str(1 << 62), "1e9"])),
    }
    for key, value in entries.items():
        if rng.random() < 0.8:
            tensor.external_data.add(key=key, value=value)


def raw_data(model: onnx.ModelProto, rng: Rng) -> None:
    """Bytes missing or too many, or values besides them."""
    tensor, kind = _tensor(model, rng), int(rng.integers(3))
    if kind == 0:
        tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]
    elif kind == 1:
        tensor.raw_data += bytes(int(rng.integers(1, 9)))
    else:
        tensor.float_data.append(1.0)


def sparse(model: onnx.ModelProto, rng: Rng) -> None:
    values = helper.make_tensor("sparse", 1, [2], [1.0, 2.0])
    places = helper.make_tensor("places", 7, [2], [0, int(rng.choice([1, 5, 1 << 40]))])
    made = helper.make_sparse_tensor(values, places, [int(rng.choice([4, 1 << 40]))])
    if rng.random() < 0.5:
        model.graph.sparse_initializer.append(made)
    else:
        model.graph.node.append(helper.make_node("Constant", [], ["sparse.out"], sparse_value=made))


def stored_int8(model: onnx.ModelProto, rng: Rng) -> None:
    """A matrix as int8, behind a Cast and a Mul, a DequantizeLinear, or a transposition."""
    matrices = [t for t in model.graph.initializer if t.data_type == 1 and len(t.dims) == 2]
    tensor = pick(matrices, rng)
    values, name = numpy_helper.to_array(tensor), tensor.name
    scale = np.array(np.abs(values).max() / 127 or 1, np.float32)
    tensor.CopyFrom(numpy_helper.from_array(np.round(values / scale).astype(np.int8), f"{name}.int8"))
    model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
    nodes = [
        helper.make_node("Cast", [f"{name}.int8"], [f"{name}.cast"], to=1),
        helper.make_node("Mul", [f"{name}.cast", f"{name}.scale"], [name]),
    ]
    if rng.random() < 0.4:
        nodes = [helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name])]
    _first(model, nodes)


def _first(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    order = [*nodes, *(onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(order)


def tensor_scaled(model: onnx.ModelProto, rng: Rng) -> None:
    """All values of a weight zero, one number, huge, tiny, or beyond what its type holds."""
    tensor = pick([t for t in model.graph.initializer if t.data_type == 1], rng)
    values = numpy_helper.to_array(tensor)
    how = int(rng.integers(5))
    with np.errstate(over="ignore"):
        made = (values * 0, values * 0 + 0.5, values * 1e30, values * 1e-30, np.where(values > 0, np.inf, values))[how]
    tensor.CopyFrom(numpy_helper.from_array(made.astype(np.float32), tensor.name))


def tensor_cast(model: onnx.ModelProto, rng: Rng) -> None:
    """The values of a tensor in another type."""
    tensor = _tensor(model, rng)
    dtype = pick([np.float16, np.float64, np.int8, np.int32, np.uint8, np.bool_, np.float32, np.int64], rng)
    with np.errstate(invalid="ignore", over="ignore"):
        values = numpy_helper.to_array(tensor).astype(dtype)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def overridable(model: onnx.ModelProto, rng: Rng) -> None:
    """A weight that is an input too, so that a caller may give another."""
    tensor = pick(model.graph.initializer, rng)
    model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
