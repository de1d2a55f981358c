"""Damage by a few nodes that ask for much: functions and graphs in each other, constants and inputs, loops."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tensor_damage import as_often

HUGE = 1 << 33  # elements that a few nodes make
Rng = np.random.Generator


def _constant(model: onnx.ModelProto, name: str, values: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def functions(model: onnx.ModelProto, rng: Rng) -> None:
    """Functions that call each other, once or twice, in a line or in a circle."""
    count, twice, circle = int(rng.integers(2, 26)), rng.random() < 0.7, rng.random() < 0.15
    if twice and 10 < count < 14:
        count += 4  # so 2,000 to 12,000 nodes are left out: read as a model of that size, which takes its time
    for i in range(count):
        last = i == count - 1
        called, domain = ("F0", "own") if last and circle else ("Relu", "") if last else (f"F{i + 1}", "own")
        nodes = [helper.make_node(called, ["x"], ["t" if twice else "y"], domain=domain)]
        if twice:
            nodes.append(helper.make_node(called, ["t"], ["y"], domain=domain))
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", f"F{i}", ["x"], ["y"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    before_output(model, helper.make_node("F0", ["before"], ["after"], domain="own"))


def before_output(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Put `node`, which reads "before" and writes "after", before the first output."""
    name = model.graph.output[0].name
    for other in model.graph.node:
        for names in (other.input, other.output):
            for i, old in enumerate(names):
                names[i] = "before" if old == name else old
    node.output[0] = name
    model.graph.node.append(node)


def fold_bomb(model: onnx.ModelProto, rng: Rng) -> None:
    """A few constants from which gigabytes follow, added to an output or to nothing."""
    kind = int(rng.integers(4))
    graph, each = model.graph, round(HUGE ** (1 / 3))
    _constant(model, "bomb.shape", np.array([each] * 3, np.int64))
    _constant(model, "bomb.one", np.zeros((1, 1, 1), np.float32))
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
    before_output(model, helper.make_node("Add", ["before", "bomb.max"], ["after"]))


def chain(model: onnx.ModelProto, rng: Rng) -> None:
    """Thousands of nodes in a row or beside each other."""
    count, op, row = as_often(500, 15_000, rng), str(rng.choice(["Identity", "Relu", "Neg"])), rng.random() < 0.5
    first = model.graph.node[-1].output[0]
    for i in range(count):
        model.graph.node.append(helper.make_node(op, [f"chain.{i}" if row and i else first], [f"chain.{i + 1}"]))
    if rng.random() < 0.5:
        before_output(model, helper.make_node("Sum", ["before", f"chain.{count}"], ["after"]))


def nested(model: onnx.ModelProto, rng: Rng) -> None:
    """Graphs in graphs, down the first branches."""
    _constant(model, "nested.condition", np.array(True))

    def branch(node: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph([node], "g", [], [helper.make_empty_tensor_value_info(node.output[0])])

    node = helper.make_node("Identity", ["before"], ["deepest"])
    for i in range(int(rng.integers(1, 26))):
        other = branch(helper.make_node("Identity", ["before"], ["other"]))
        branches: dict[str, Any] = {"then_branch": branch(node), "else_branch": other}
        if rng.random() < 0.02:
            branches.pop("else_branch")
        node = helper.make_node("If", ["nested.condition"], [f"v{i}"], **branches)
    before_output(model, node)


def input_bomb(model: onnx.ModelProto, rng: Rng) -> None:
    """Gigabytes that the first input's values or sizes ask for, when the model runs."""
    first = model.graph.input[0].name
    node = helper.make_node
    _constant(model, "bomb.size", np.int64(round(HUGE ** (1 / 3))))
    _constant(model, "bomb.shape", np.array([-1], np.int64))
    sizes = [
        node("Shape", [first], ["bomb.sizes"]),
        node("ReduceSum", ["bomb.sizes"], ["bomb.sum"], keepdims=0),
        node("Mul", ["bomb.sum", "bomb.size"], ["bomb.side"]),
        node("Reshape", ["bomb.side", "bomb.shape"], ["bomb.line"]),
        node("Concat", ["bomb.line"] * int(rng.integers(1, 5)), ["bomb.large"], axis=0),
    ]
    kind = int(rng.integers(6))
    if kind == 0:
        made = [node("ConstantOfShape", ["bomb.large"], ["bomb"])]
    elif kind == 1:
        one = _constant(model, "bomb.one", np.zeros((1,), np.float32))
        made = [node("Expand", [one, "bomb.large"], ["bomb"])]
    elif kind == 2:
        limits = [_constant(model, "bomb.from", np.int64(0)), _constant(model, "bomb.step", np.int64(1))]
        square = node("Mul", ["bomb.side", "bomb.side"], ["bomb.square"])
        made = [
            square,
            node("Range", [limits[0], "bomb.square", limits[1]], ["bomb.range"]),
            node("Cast", ["bomb.range"], ["bomb"], to=1),
        ]
    elif kind == 3:
        values = _constant(model, "bomb.values", np.array([0, 1], np.float32))
        made = [
            node("ConstantOfShape", ["bomb.line"], ["bomb.zeros"]),
            node("Cast", ["bomb.zeros"], ["bomb.ids"], to=7),
            node("OneHot", ["bomb.ids", "bomb.side", values], ["bomb"]),
        ]
    elif kind == 4:
        made = [node("Cast", [first], ["bomb.0"], to=1)]
        count = int(rng.integers(20, 40))
        made += [node("Concat", [f"bomb.{i}"] * 2, [f"bomb.{i + 1}"], axis=0) for i in range(count)]
        made.append(node("Identity", [f"bomb.{count}"], ["bomb"]))
    else:
        made = [
            node("ConstantOfShape", ["bomb.line"], ["bomb.zeros"]),
            node("Unsqueeze", ["bomb.zeros", _constant(model, "bomb.axis", np.array([1], np.int64))], ["bomb.column"]),
            node("Unsqueeze", ["bomb.zeros", _constant(model, "bomb.row", np.array([0], np.int64))], ["bomb.flat"]),
            node("MatMul", ["bomb.column", "bomb.flat"], ["bomb"]),
        ]
    model.graph.node.extend([*sizes, *made, node("ReduceMax", ["bomb"], ["bomb.max"], keepdims=0)])
    before_output(model, node("Add", ["before", "bomb.max"], ["after"]))


def branch_bomb(model: onnx.ModelProto, rng: Rng) -> None:
    """Gigabytes within a branch of an If, whose condition is a constant or made of the first input."""
    node = helper.make_node
    _constant(model, "branch.shape", np.array([round(HUGE ** (1 / 3))] * 3, np.int64))
    makes = [
        node("ConstantOfShape", ["branch.shape"], ["large"]),
        node("ReduceMax", ["large"], ["most"], keepdims=0),
        node("Add", ["before", "most"], ["then"]),
    ]
    branches = [
        helper.make_graph(nodes, "branch", [], [helper.make_empty_tensor_value_info(nodes[-1].output[0])])
        for nodes in (makes, [node("Identity", ["before"], ["otherwise"])])
    ]
    if rng.random() < 0.5:
        branches.reverse()
    if rng.random() < 0.5:
        _constant(model, "branch.condition", np.array(True))
    else:
        _constant(model, "branch.few", np.int64(1 << 40))
        model.graph.node.extend(
            [
                node("Size", [model.graph.input[0].name], ["branch.values"]),
                node("Less", ["branch.values", "branch.few"], ["branch.condition"]),
            ]
        )
    made = node("If", ["branch.condition"], ["after"], then_branch=branches[0], else_branch=branches[1])
    before_output(model, made)


def loop(model: onnx.ModelProto, rng: Rng) -> None:
    """A loop: over a constant number of rounds or one made of the first input, while true, while a value says so.

    In its body a value is handed on, or doubled in length.
    """
    node = helper.make_node
    rounds = int(rng.choice(np.array([0, 3, 40, 1 << 20, (1 << 62)], dtype=object)))
    known, computed, grows = rng.random() < 0.4, rng.random() < 0.5, rng.random() < 0.3
    _constant(model, "loop.c", np.array(True))
    if known:
        limit = _constant(model, "loop.n", np.int64(rounds))
    elif rng.random() < 0.5:
        limit = ""
    else:
        limit = "loop.n"
        factor = _constant(model, "loop.factor", np.int64(max(rounds, 1)))
        model.graph.node.extend(
            [
                node("Size", [model.graph.input[0].name], ["loop.size"]),
                node("Mul", ["loop.size", factor], [limit]),
            ]
        )
    body = [node("Concat", ["v", "v"], ["v2"], axis=0) if grows else node("Identity", ["v"], ["v2"])]
    if computed:
        _constant(model, "loop.below", np.int64(-1))
        body += [node("Size", ["v"], ["size"]), node("Greater", ["size", "loop.below"], ["c2"])]
    else:
        body.append(node("Identity", ["c"], ["c2"]))
    graph = helper.make_graph(
        body,
        "body",
        [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("c", 9))]
        + [helper.make_empty_tensor_value_info("v")],
        [helper.make_tensor_value_info("c2", 9, []), helper.make_empty_tensor_value_info("v2")],
    )
    before_output(model, node("Loop", [limit, "loop.c", "before"], ["after"], body=graph))


def scan(model: onnx.ModelProto, rng: Rng) -> None:
    """A Scan over an output, with a loop that never ends in its body, now and then."""
    node = helper.make_node
    nodes = [node("Identity", ["x"], ["y"])]
    if rng.random() < 0.3:
        info = helper.make_tensor_value_info
        inner = helper.make_graph(
            [node("Identity", ["ci"], ["co"])], "inner", [info("i", 7, []), info("ci", 9, [])], [info("co", 9, [])]
        )
        _constant(model, "scan.true", np.array(True))
        nodes.append(node("Loop", ["", "scan.true"], [], body=inner))
    graph = helper.make_graph(
        nodes, "scan", [helper.make_empty_tensor_value_info("x")], [helper.make_empty_tensor_value_info("y")]
    )
    before_output(model, node("Scan", ["before"], ["after"], body=graph, num_scan_inputs=int(rng.choice([1, 0, 2]))))
