"""Damage done to ONNX models: one small change each, by a seeded generator, at the level of bytes or of the graph."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from bombs import before_output, branch_bomb, chain, fold_bomb, functions, input_bomb, loop, nested, scan
from onnx import TensorProto, helper, numpy_helper
from tensor_damage import (
    SIZES,
    external,
    overridable,
    pick,
    raw_data,
    sparse,
    stored_int8,
    tensor_cast,
    tensor_dims,
    tensor_gone,
    tensor_scaled,
    tensor_shape,
    tensor_type,
    tensor_values,
    tensors_many,
    tensors_merged,
)
from wire_damage import BYTES

Change = Callable[[onnx.ModelProto, np.random.Generator], None]
NAMES = ("", "x\0y", "\x1b[31mred\x1b[0m", "a\nb", "[bold]b[/bold]", "é" * 40, "n" * 20_000, "../../x", "%s%n")
OPERATORS = (
    *("Add", "MatMul", "Gather", "Softmax", "Reshape", "Transpose", "Cast", "If", "Loop", "Split", "Concat", "Gemm"),
    *("LayerNormalization", "Where", "Identity", "Expand", "Slice", "QuantizeLinear", "DequantizeLinear", "Nobody"),
    *("Attention", "MultiHeadAttention", "SkipLayerNormalization", "MatMulNBits", "Gelu", "Unsqueeze", "Shape", "Clip"),
)


def mutated(model: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """The name of the damage and the damaged file; one in six has two to four damages."""
    count = 1 if rng.random() < 5 / 6 else int(rng.integers(2, 5))
    names = []
    for _ in range(count):
        level: Any = BYTES if rng.random() < 0.15 else GRAPH
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


def _names(model: onnx.ModelProto) -> list[str]:
    return [name for node in model.graph.node for name in [*node.input, *node.output] if name]


def _node_op(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    pick(model.graph.node, rng).op_type = str(rng.choice(OPERATORS))


def _node_domain(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    pick(model.graph.node, rng).domain = str(rng.choice(["com.microsoft", "ai.onnx", "nobody", "ai.onnx.ml"]))


def _node_input(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node = pick([node for node in model.graph.node if node.input], rng)
    place, kind = int(rng.integers(len(node.input))), int(rng.integers(5))
    if kind == 0:
        del node.input[place]
    elif kind == 1:
        node.input[place] = ""
    elif kind == 2:
        node.input.append(pick(_names(model), rng))
    else:
        node.input[place] = pick(_names(model), rng)


def _node_output(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node, kind = pick(model.graph.node, rng), int(rng.integers(4))
    if kind == 0:
        node.output.append("more")
    elif kind == 1:
        del node.output[:]
    else:
        node.output[0] = "" if kind == 2 else pick(_names(model), rng)


def _node_attribute(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node = pick([node for node in model.graph.node if node.attribute], rng)
    attribute, kind = pick(node.attribute, rng), int(rng.integers(7))
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
    model.graph.node.append(pick(model.graph.node, rng))


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
    old, new = pick(_names(model), rng), str(rng.choice(NAMES))
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
    pick(model.graph.node, rng).name = str(rng.choice(NAMES))


def _interface_type(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    value = pick([*model.graph.input, *model.graph.output], rng)
    if rng.random() < 0.7:
        value.type.tensor_type.elem_type = int(rng.integers(0, 30))
    elif rng.random() < 0.5:
        value.type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1])))
    else:
        value.ClearField("type")


def _interface_dims(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    shape = pick([*model.graph.input, *model.graph.output], rng).type.tensor_type.shape
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
    pick([*model.graph.input, *model.graph.output], rng).type.tensor_type.ClearField("shape")


def _output_more(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    name = pick([node.output[0] for node in model.graph.node], rng)
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


def _input_gone(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    del model.graph.input[int(rng.integers(len(model.graph.input)))]


def _output_moved(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """An output that is an input, a weight, a whole number, or one number for all rows."""
    graph, kind = model.graph, int(rng.integers(4))
    if kind == 0:
        graph.output.append(pick(graph.input, rng))
    elif kind == 1:
        tensor = pick(graph.initializer, rng)
        graph.output.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    else:
        operator, dtype = ("Size", 7) if kind == 2 else ("ReduceMax", 1)
        node = helper.make_node(operator, [graph.output[0].name], ["more.output"])
        if kind == 3:
            node.attribute.append(helper.make_attribute("keepdims", 0))
        graph.node.append(node)
        graph.output.insert(int(rng.integers(2)), helper.make_tensor_value_info("more.output", dtype, []))


def _strings(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Texts where numbers are looked for."""
    kind = int(rng.integers(3))
    if kind == 0:
        pick([*model.graph.input, *model.graph.output], rng).type.tensor_type.elem_type = TensorProto.STRING
    elif kind == 1:
        old = pick(model.graph.initializer, rng)
        texts = [b"a", b"\xff\x00"]
        old.CopyFrom(TensorProto(name=old.name, data_type=TensorProto.STRING, dims=[2], string_data=texts))
    else:
        model.graph.node.append(helper.make_node("Constant", [], ["text"], value_strings=["a", "b"]))
        model.graph.output.append(helper.make_tensor_value_info("text", TensorProto.STRING, [2]))


def _type_kind(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A sequence or an optional among the outputs, or on the way to one."""
    graph, kind = model.graph, int(rng.integers(3))
    tensor = helper.make_tensor_type_proto(1, None)
    if kind == 0:
        graph.node.append(helper.make_node("SequenceConstruct", [graph.output[0].name] * 2, ["listed"]))
        graph.output.append(helper.make_value_info("listed", helper.make_sequence_type_proto(tensor)))
    elif kind == 1:
        graph.node.append(helper.make_node("Optional", [graph.output[0].name], ["maybe"]))
        graph.output.append(helper.make_value_info("maybe", helper.make_optional_type_proto(tensor)))
    else:
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "listed.first"))
        graph.node.append(helper.make_node("SequenceConstruct", ["before"], ["listed"]))
        before_output(model, helper.make_node("SequenceAt", ["listed", "listed.first"], ["after"]))


def _harmless(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """What changes no answer, put behind a node: the same, by way of another type or shape, or twice negated."""
    node = pick([node for node in model.graph.node if node.output], rng)
    old, kind = node.output[0], int(rng.integers(5))
    pairs = (
        ("Identity", "Identity"),
        ("Neg", "Neg"),
        ("Cast", "Cast"),
        ("Unsqueeze", "Squeeze"),
        ("Dropout", "Identity"),
    )
    axis = numpy_helper.from_array(np.array([0], np.int64), "harmless.axis")
    model.graph.initializer.append(axis)
    given: list[dict[str, Any]] = [{"to": 11}, {"to": 1}] if kind == 2 else [{}, {}]
    more = ["harmless.axis"] if kind == 3 else []
    node.output[0] = "harmless.0"
    for i, operator in enumerate(pairs[kind]):
        written = old if i else "harmless.1"
        model.graph.node.append(helper.make_node(operator, [f"harmless.{i}", *more], [written], **given[i]))


def _circle(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A node that reads what it writes itself, or what a later one does."""
    nodes = [node for node in model.graph.node if node.input]
    at = int(rng.integers(len(nodes)))
    nodes[at].input[0] = nodes[int(rng.integers(at, len(nodes)))].output[0]


def _name_twice(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    pick(model.graph.node, rng).name = pick(model.graph.node, rng).name


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


GRAPH: dict[str, Change] = {
    change.__name__.lstrip("_"): change
    for change in (
        *(_node_op, _node_domain, _node_input, _node_output, _node_attribute, _node_twice, _node_gone, _nodes_swapped),
        *(_renamed, _node_renamed, _name_twice, _circle, _harmless, _type_kind, _strings, _interface_type, _no_shape),
        *(_interface_dims, _output_more, _output_gone, _output_moved, _input_more, _input_gone, _opset, _ir_version),
        *(_metadata, functions, fold_bomb, input_bomb, branch_bomb, chain, nested, loop, scan),
        *(tensor_type, tensor_dims, tensor_shape, tensor_values, tensor_scaled, tensor_cast, tensor_gone, raw_data),
        *(tensors_merged, tensors_many, external, sparse, stored_int8, overridable),
    )
}
