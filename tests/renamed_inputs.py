"""Models whose inputs are called, ordered and written otherwise, and answer the same."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import helper, numpy_helper

from onnxslim_bert.arrays import Array


def with_inputs(source: Path, path: Path, order: Sequence[str], names: Mapping[str, str]) -> Path:
    """`source` with its inputs in this order, each under its new name."""
    proto = onnx.load(source)
    graph = proto.graph
    given = {value.name: value for value in graph.input}
    inputs = [given[name] for name in order]
    for node in graph.node:
        # in two steps, as names may be exchanged
        node.input[:] = [names.get(name, name) for name in node.input]
    for value in inputs:
        value.name = names.get(value.name, value.name)
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
    del graph.input[:]
    graph.input.extend(copies)
    onnx.save(proto, path)
    return path


def with_mask(source: Path, path: Path, mask: str, scale: Array, offset: Array, dtype: int | None = None) -> Path:
    """`source`, which gets `scale * given + offset` as its mask; `dtype`: of what is given."""
    proto = onnx.load(source)
    graph = proto.graph
    value = next(value for value in graph.input if value.name == mask)
    own = value.type.tensor_type.elem_type
    value.type.tensor_type.elem_type = dtype or own
    for node in graph.node:
        node.input[:] = ["mask/own" if name == mask else name for name in node.input]
    graph.initializer.extend(
        [numpy_helper.from_array(scale, "mask/scale"), numpy_helper.from_array(offset, "mask/offset")]
    )
    graph.node.insert(0, helper.make_node("Mul", [mask, "mask/scale"], ["mask/scaled"]))
    graph.node.insert(1, helper.make_node("Add", ["mask/scaled", "mask/offset"], ["mask/sum"]))
    graph.node.insert(2, helper.make_node("Cast", ["mask/sum"], ["mask/own"], to=own))
    onnx.save(proto, path)
    return path


def with_weights(source: Path, path: Path, version: int = 3) -> Path:
    """`source` as files of IR version 3 are: its weights stand among the inputs, in front of them."""
    proto = onnx.load(source)
    given = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in proto.graph.input]
    weights = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in proto.graph.initializer]
    del proto.graph.input[:]
    proto.graph.input.extend([*weights, *given])
    proto.ir_version = version
    onnx.save(proto, path)
    return path
