"""Damage done to ONNX models: one small change each, by a seeded generator, at the level of bytes or of the graph."""

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Change = Callable[[onnx.ModelProto, np.random.Generator], None]
SIZES = (0, 1, -1, 2, 3, 7, 1 << 16, 1 << 31, 1 << 40, -(1 << 40), (1 << 63) - 1)
NAMES = ("", "x\0y", "\x1b[31mred\x1b[0m", "a\nb", "[bold]b[/bold]", "é" * 40, "n" * 20_000, "../../x", "%s%n")
OPERATORS = (
    *("Add", "MatMul", "Gather", "Softmax", "Reshape", "Transpose", "Cast", "If", "Loop", "Split", "Concat", "Gemm"),
    *("LayerNormalization", "Where", "Identity", "Expand", "Slice", "QuantizeLinear", "DequantizeLinear", "Nobody"),
    *("Attention", "MultiHeadAttention", "SkipLayerNormalization", "MatMulNBits", "Gelu", "Unsqueeze", "Shape", "Clip"),
)
BOMB = 1 << 33  # elements that a few nodes make


def mutated(model: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """The name of the damage and the damaged file; one in six has two to four damages."""
    count = 1 if rng.random() < 5 / 6 else int(rng.integers(2, 5))
    names = []
    for _ in range(count):
        level = BYTES if rng.random() < 0.15 else GRAPH
        name = str(rng.choice(list(level)))
        if level is BYTES:
            model = BYTES[name](model, rng)
        else:
            try:
                proto = onnx.ModelProto.FromString(model)
            except Exception:  # already no model; bytes alone can be damaged further
                continue
            try:
                GRAPH[name](proto, rng)
                model = proto.SerializeToString()
            except Exception:  # nothing there to damage so
                continue
        names.append(name)
    return "+".join(names) or "none", model


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for position in rng.integers(0, len(changed), rng.integers(1, 6)):
        changed[position] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def _splice(data: bytes, rng: np.random.Generator) -> bytes:
    start, length, place = (int(rng.integers(len(data))), int(rng.integers(1, 300)), int(rng.integers(len(data))))
    return data[:place] + data[start : start + length] + data[place:]


def _erase(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    return data[:start] + data[start + int(rng.integers(1, 200)) :]


def _append(data: bytes, rng: np.random.Generator) -> bytes:
    """A second message after the first, which protobuf merges."""
    return data + data[: int(rng.integers(len(data)))]


def _pick(items: Any, rng: np.random.Generator) -> Any:
    return items[int(rng.integers(len(items)))]


def _tensor(model: onnx.ModelProto, rng: np.random.Generator) -> TensorProto:
    """An initializer, or the value of a Constant."""
    values = [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]
    found: TensorProto = _pick([*model.graph.initializer, *values], rng)
    return found


def _names(model: onnx.ModelProto) -> list[str]:
    return [name for node in model.graph.node for name in [*node.input, *node.output] if name]


def _node_op(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _pick(model.graph.node, rng).op_type = str(rng.choice(OPERATORS))


def _node_domain(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _pick(model.graph.node, rng).domain = str(rng.choice(["com.microsoft", "ai.onnx", "nobody", "ai.onnx.ml"]))


def _node_input(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node = _pick([node for node in model.graph.node if node.input], rng)
    place, kind = int(rng.integers(len(node.input))), int(rng.integers(5))
    if kind == 0:
        del node.input[place]
    elif kind == 1:
        node.input[place] = ""
    elif kind == 2:
        node.input.append(_pick(_names(model), rng))
    else:
        node.input[place] = _pick(_names(model), rng)


def _node_output(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node, kind = _pick(model.graph.node, rng), int(rng.integers(4))
    if kind == 0:
        node.output.append("more")
    elif kind == 1:
        del node.output[:]
    else:
        node.output[0] = "" if kind == 2 else _pick(_names(model), rng)


def _node_attribute(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node = _pick([node for node in model.graph.node if node.attribute], rng)
    attribute, kind = _pick(node.attribute, rng), int(rng.integers(7))
    size = int(rng.choice(np.array(SIZES, dtype=object)))
    if kind == 0:
        node.attribute.remove(attribute)
    elif kind == 1:
        attribute.type = int(rng.integers(0, 18))
    elif kind == 2:
        attribute.CopyFrom(helper.make_attribute(attribute.name, size))
    elif kind == 3:
        attribute.CopyFrom(helper.make_attribute(attribute.name, [size] * int(rng.integers(1, 6))))
    elif kind == 4:
        attribute.CopyFrom(helper.make_attribute(attribute.name, float(rng.choice([np.nan, np.inf, 0.0, -1.0]))))
    elif kind == 5:
        attribute.CopyFrom(helper.make_attribute(attribute.name, b"\xff\xfe" if rng.random() < 0.5 else "text"))
    else:
        attribute.name = "nothing"


def _node_twice(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    model.graph.node.append(_pick(model.graph.node, rng))


def _node_gone(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    del model.graph.node[int(rng.integers(len(model.graph.node)))]


def _nodes_swapped(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    order = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    a, b = rng.integers(0, len(order), 2)
    order[a], order[b] = order[b], order[a]
    del model.graph.node[:]
    model.graph.node.extend(order)


def _renamed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """One name, everywhere or at one place."""
    old, new = _pick(_names(model), rng), str(rng.choice(NAMES))
    everywhere = rng.random() < 0.7
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
                    if not everywhere:
                        return
    for value in [*model.graph.initializer, *model.graph.input, *model.graph.output]:
        value.name = new if value.name == old else value.name


def _node_renamed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _pick(model.graph.node, rng).name = str(rng.choice(NAMES))


def _tensor_type(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _tensor(model, rng).data_type = int(rng.integers(0, 30))


def _tensor_dims(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = _tensor(model, rng)
    if not tensor.dims or rng.random() < 0.3:
        tensor.dims.append(int(rng.choice(np.array(SIZES, dtype=object))))
    elif rng.random() < 0.3:
        turned = list(tensor.dims)[::-1]
        del tensor.dims[:]
        tensor.dims.extend(turned)
    else:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = int(rng.choice(np.array(SIZES, dtype=object)))


def _tensor_shape(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Fewer or more values, in a shape that says so."""
    tensor = _tensor(model, rng)
    values = numpy_helper.to_array(tensor)
    kind = int(rng.integers(4))
    flat = values.reshape(-1)
    made = (values[:0] if values.ndim else flat, values[None], flat[: 1 + flat.size // 2], np.tile(flat, 2))[kind]
    tensor.CopyFrom(numpy_helper.from_array(made, tensor.name))


def _tensor_values(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = _tensor(model, rng)
    values = numpy_helper.to_array(tensor).copy()
    if values.dtype.kind == "f":
        values.reshape(-1)[int(rng.integers(values.size))] = rng.choice([np.nan, np.inf, 0, 1e30, -1e-40])
    else:
        values.reshape(-1)[int(rng.integers(values.size))] = rng.choice([0, -1, 1, 2, 5, 127])
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _tensor_gone(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    del model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]


def _tensors_merged(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Two initializers of one name."""
    _pick(model.graph.initializer, rng).name = _pick(model.graph.initializer, rng).name


def _tensors_many(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    for i in range(int(rng.integers(1000, 20_000))):
        model.graph.initializer.append(
            TensorProto(name=f"many.{i}", data_type=1, dims=[1], raw_data=struct.pack("f", i))
        )


def _external(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = _tensor(model, rng)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {
        "location": str(
            rng.choice(["tokenizer.json", "../x", "/etc/passwd", "a\0b", "", ".", "calib.tsv", "gone.bin"])
        ),
        "offset": str(rng.choice(["0", "-1", "9" * 30, "x", "4096", str(1 << 62)])),
        "length": str(rng.choice(["0", "-5", "12", str(1 << 62), "1e9"])),
    }
    for key, value in entries.items():
        if rng.random() < 0.8:
            tensor.external_data.add(key=key, value=value)


def _interface_type(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    value = _pick([*model.graph.input, *model.graph.output], rng)
    if rng.random() < 0.7:
        value.type.tensor_type.elem_type = int(rng.integers(0, 30))
    elif rng.random() < 0.5:
        value.type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1])))
    else:
        value.ClearField("type")


def _interface_dims(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    shape = _pick([*model.graph.input, *model.graph.output], rng).type.tensor_type.shape
    kind = int(rng.integers(4))
    if kind == 0:
        shape.dim.add().dim_value = 3
    elif kind == 1:
        del shape.dim[0]
    elif kind == 2:
        shape.dim[int(rng.integers(len(shape.dim)))].dim_value = int(rng.choice(np.array(SIZES, dtype=object)))
    else:
        shape.dim[int(rng.integers(len(shape.dim)))].dim_param = str(rng.choice(NAMES))


def _no_shape(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _pick([*model.graph.input, *model.graph.output], rng).type.tensor_type.ClearField("shape")


def _output_more(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    name = _pick([node.output[0] for node in model.graph.node], rng)
    model.graph.output.append(helper.make_tensor_value_info(name, int(rng.choice([1, 7])), None))


def _output_gone(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    del model.graph.output[-1]


def _input_more(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    name = str(rng.choice(["extra", "input_ids", model.graph.initializer[0].name]))
    model.graph.input.append(helper.make_tensor_value_info(name, int(rng.choice([1, 7])), ["b", "s"]))


def _opset(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    if rng.random() < 0.2:
        model.ClearField("opset_import")
    else:
        model.opset_import[0].version = int(rng.choice([-1, 0, 1, 6, 9, 11, 13, 15, 18, 22, 28, 99, 1 << 40]))


def _ir_version(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    model.ir_version = int(rng.choice([-1, 0, 1, 3, 7, 13, 99, 1 << 40]))


def _functions(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Functions that call each other, once or twice, in a line or in a circle."""
    count, twice, circle = int(rng.integers(2, 26)), rng.random() < 0.7, rng.random() < 0.15
    for i in range(count):
        last = i == count - 1
        called, domain = ("F0", "own") if last and circle else ("Relu", "") if last else (f"F{i + 1}", "own")
        nodes = [helper.make_node(called, ["x"], ["t" if twice else "y"], domain=domain)]
        if twice:
            nodes.append(helper.make_node(called, ["t"], ["y"], domain=domain))
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", f"F{i}", ["x"], ["y"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    _before_output(model, helper.make_node("F0", ["before"], ["after"], domain="own"))


def _before_output(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Put `node`, which reads "before" and writes "after", before the first output."""
    name = model.graph.output[0].name
    for other in model.graph.node:
        for names in (other.input, other.output):
            for i, old in enumerate(names):
                names[i] = "before" if old == name else old
    node.output[0] = name
    model.graph.node.append(node)


def _fold_bomb(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A few constants from which gigabytes follow, added to an output or to nothing."""
    kind = int(rng.integers(4))
    graph, each = model.graph, round(BOMB ** (1 / 3))
    shape = numpy_helper.from_array(np.array([each] * 3, np.int64), "bomb.shape")
    one = numpy_helper.from_array(np.zeros((1, 1, 1), np.float32), "bomb.one")
    graph.initializer.extend([shape, one])
    if kind == 0:
        graph.node.append(helper.make_node("ConstantOfShape", ["bomb.shape"], ["bomb"]))
    elif kind in (1, 2):
        graph.node.append(helper.make_node("Expand" if kind == 1 else "Tile", ["bomb.one", "bomb.shape"], ["bomb"]))
    else:
        graph.node.append(helper.make_node("Identity", ["bomb.one"], ["bomb.0"]))
        for i in range(33):
            graph.node.append(helper.make_node("Concat", [f"bomb.{i}"] * 2, [f"bomb.{i + 1}"], axis=0))
        graph.node.append(helper.make_node("Identity", ["bomb.33"], ["bomb"]))
    graph.node.append(helper.make_node("ReduceMax", ["bomb"], ["bomb.max"], keepdims=0))
    _before_output(model, helper.make_node("Add", ["before", "bomb.max"], ["after"]))


def _chain(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Thousands of nodes in a row or beside each other."""
    count, op, row = int(rng.integers(500, 20_000)), str(rng.choice(["Identity", "Relu", "Neg"])), rng.random() < 0.5
    first = model.graph.node[-1].output[0]
    for i in range(count):
        model.graph.node.append(helper.make_node(op, [f"chain.{i}" if row and i else first], [f"chain.{i + 1}"]))
    if rng.random() < 0.5:
        _before_output(model, helper.make_node("Sum", ["before", f"chain.{count}"], ["after"]))


def _nested(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Graphs in graphs, down the first branches."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "nested.condition"))

    def branch(node: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph([node], "g", [], [helper.make_empty_tensor_value_info(node.output[0])])

    node = helper.make_node("Identity", ["before"], ["deepest"])
    for i in range(int(rng.integers(1, 26))):
        other = branch(helper.make_node("Identity", ["before"], ["other"]))
        branches: dict[str, Any] = {"then_branch": branch(node), "else_branch": other}
        if rng.random() < 0.02:
            branches.pop("else_branch")
        node = helper.make_node("If", ["nested.condition"], [f"v{i}"], **branches)
    _before_output(model, node)


def _loop(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A loop over a constant number of rounds, which may never end."""
    rounds = int(rng.choice(np.array([0, 3, 1 << 20, (1 << 62)], dtype=object)))
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])],
        "body",
        [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("c", 9))]
        + [helper.make_empty_tensor_value_info("v")],
        [helper.make_tensor_value_info("c2", 9, []), helper.make_empty_tensor_value_info("v2")],
    )
    for name, value in (("loop.n", np.array(rounds, np.int64)), ("loop.c", np.array(True))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    _before_output(model, helper.make_node("Loop", ["loop.n", "loop.c", "before"], ["after"], body=body))


def _metadata(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    text = str(
        rng.choice(["[" * 100_000, "9" * 5000, json.dumps({"a": "9" * 5000}), "null", "[]", '{"a":1e999}', "\x1b[2J"])
    )
    key = str(
        rng.choice(
            ["onnxslim_bert", "onnxslim-bert", "onnxslim_bert.release.measured", "onnxslim_bert.kept_tokens", "x"]
        )
    )
    model.metadata_props.add(key=key, value=text)
    if rng.random() < 0.3:
        model.producer_name = str(rng.choice(NAMES))


BYTES = {"flip": _flip, "cut": _cut, "splice": _splice, "erase": _erase, "append": _append}
GRAPH: dict[str, Change] = {
    change.__name__.lstrip("_"): change
    for change in (
        *(_node_op, _node_domain, _node_input, _node_output, _node_attribute, _node_twice, _node_gone, _nodes_swapped),
        *(_renamed, _node_renamed, _tensor_type, _tensor_dims, _tensor_shape, _tensor_values, _tensor_gone),
        *(_tensors_merged, _tensors_many, _external, _interface_type, _interface_dims, _no_shape, _output_more),
        *(_output_gone, _input_more, _opset, _ir_version, _functions, _fold_bomb, _chain, _nested, _loop, _metadata),
        *(_node_attribute, _node_op, _node_input, _tensor_shape),
    )
}
