"""Files that are no model, made from one by a single change: each is refused where it is read, in one line."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphs import EXPORTS, SOME, fixture
from onnx import TensorProto, helper, numpy_helper

from onnxslim_bert.errors import ModelError, one_line
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.model.onnx_model import Model

Change = Callable[[onnx.ModelProto], object]


def first(model: onnx.ModelProto, operator: str) -> onnx.NodeProto:
    """The first node of `operator`."""
    return next(node for node in model.graph.node if node.op_type == operator)


def attribute(model: onnx.ModelProto, operator: str, name: str) -> onnx.AttributeProto:
    return next(a for n in model.graph.node if n.op_type == operator for a in n.attribute if a.name == name)


def set_type(model: onnx.ModelProto, operator: str, name: str, number: int) -> None:
    attribute(model, operator, name).i = number


def normed(model: onnx.ModelProto, number: int) -> None:
    """A norm of the logits that computes in type `number`."""
    scale = numpy_helper.from_array(np.ones(1, np.float32), "normed.scale")
    model.graph.initializer.append(scale)
    node = helper.make_node("LayerNormalization", ["logits", "normed.scale"], ["normed"], stash_type=number)
    model.graph.node.append(node)


def weight(model: onnx.ModelProto) -> onnx.TensorProto:
    """The first matrix."""
    return next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)


def small(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if len(tensor.raw_data) < 1024)


def outside(tensor: onnx.TensorProto, **entries: str) -> None:
    """Declare that the data of `tensor` lie in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def nest(model: onnx.ModelProto, depth: int) -> None:
    """Graphs in graphs, `depth` deep."""
    inner = leaf = helper.make_graph(
        [helper.make_node("Identity", ["logits"], ["v"])], "g", [], [helper.make_empty_tensor_value_info("v")]
    )
    for i in range(depth):
        node = helper.make_node("If", ["condition"], [f"v{i}"], then_branch=inner, else_branch=leaf)
        inner = helper.make_graph([node], f"g{i}", [], [helper.make_empty_tensor_value_info(f"v{i}")])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    model.graph.node.append(helper.make_node("If", ["condition"], ["end"], then_branch=inner, else_branch=leaf))


def functions(model: onnx.ModelProto, *bodies: list[str], name: str = "F") -> None:
    """Functions F0, F1, ... of one input; each body lists the operators that it calls one after the other."""
    for number, body in enumerate(bodies):
        names = ["x", *(f"t{i}" for i in range(len(body) - 1)), "y"]
        nodes = [
            helper.make_node(op, [a], [b], domain="own" if op.startswith(name) else "")
            for op, a, b in zip(body, names[:-1], names[1:], strict=True)
        ]
        model.functions.append(
            helper.make_function("own", f"{name}{number}", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)])
        )
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node.append(helper.make_node(f"{name}0", ["logits"], ["end"], domain="own"))


def unfold(model: onnx.ModelProto, operator: str) -> None:
    """A few small constants of which `operator` makes gigabytes."""
    shape = numpy_helper.from_array(np.array([1 << 10] * 3, np.int64), "shape")
    sides = [
        numpy_helper.from_array(np.zeros(size, np.float32), f"v{len(size)}") for size in ((1 << 15, 1), (1 << 15,))
    ]
    one = numpy_helper.from_array(np.zeros((1, 1, 1), np.float32), "one")
    model.graph.initializer.extend([shape, one, *sides])
    inputs = {"ConstantOfShape": ["shape"], "Expand": ["one", "shape"], "Tile": ["one", "shape"], "Add": ["v1", "v2"]}
    if operator in inputs:
        model.graph.node.append(helper.make_node(operator, inputs[operator], ["end"]))
    for i in range(40 if operator == "Concat" else 0):
        model.graph.node.append(helper.make_node("Concat", [f"c{i - 1}" if i else "one"] * 2, [f"c{i}"], axis=0))


def fused_gelu(model: onnx.ModelProto) -> onnx.NodeProto:
    """A node of ONNX Runtime's set, which it takes without an import and ONNX's inference does not."""
    return helper.make_node("Gelu", [model.graph.output[0].name], ["gelu"], domain="com.microsoft")


def circle(model: onnx.ModelProto) -> None:
    """The first sum reads what is computed from it."""
    node = first(model, "Add")
    node.input[0] = model.graph.node[-1].output[0]


def loop(model: onnx.ModelProto, rounds: int | None, going: str = "given", inside: bool = False) -> None:
    """A loop for so many rounds, None for no limit, at the end of the graph or in a branch of an If.

    going: what the body says of going on: "given" hands its condition on, "constant" says true, "computed" looks.
    """
    made = {
        "given": helper.make_node("Identity", ["c"], ["on"]),
        "constant": helper.make_node("Constant", [], ["on"], value=numpy_helper.from_array(np.array(True))),
        "computed": helper.make_node("Less", ["i", "limit"], ["on"]),
    }
    body = helper.make_graph(
        [made[going], helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("i", 7, []), ("c", 9, []), ("v", 1, [1]))],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("w", 1, [1])],
    )
    given = {"start": np.zeros(1, np.float32), "limit": np.array(3), "true": np.array(True)}
    given |= {} if rounds is None else {"rounds": np.array(rounds)}
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in given.items())
    node = helper.make_node("Loop", ["" if rounds is None else "rounds", "true", "start"], ["end"], body=body)
    if inside:
        other = helper.make_node("Identity", ["start"], ["end"])
        branches = [
            helper.make_graph([n], "branch", [], [helper.make_tensor_value_info("end", 1, [1])]) for n in (node, other)
        ]
        node = helper.make_node("If", ["true"], ["ended"], then_branch=branches[0], else_branch=branches[1])
    model.graph.node.append(node)


@pytest.mark.parametrize(("rounds", "said"), [(10_001, "10,001 rounds"), (1 << 62, "rounds"), (None, "without end")])
@pytest.mark.parametrize("going", ["given", "constant"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_loop_that_is_certain_to_run_long_is_refused(tmp_path, rounds, said, going, inside):
    path = written(tmp_path, "", lambda model: loop(model, rounds, going, inside))
    with pytest.raises(ModelError, match=rf"\(Loop\) runs .*{said}.*; at most 10,000 rounds are read"):
        read_skeleton(path)


@pytest.mark.parametrize(
    ("rounds", "going"), [(10_000, "given"), (0, "constant"), ((1 << 63) - 1, "computed"), (None, "computed")]
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_loop_that_ends_soon_or_may_end_is_read(tmp_path, rounds, going, inside):
    """Exporters write `while` as a loop with the largest limit that there is."""
    read_skeleton(written(tmp_path, "", lambda model: loop(model, rounds, going, inside)))


REFUSED: dict[str, tuple[Change, str]] = {
    # names
    "a name that is not UTF-8": (lambda m: None, "is not UTF-8 text"),  # see `written`
    "a cast to a type that does not exist": (lambda m: set_type(m, "Cast", "to", 99), "names element type 99"),
    "a cast to no type": (lambda m: set_type(m, "Cast", "to", 0), "names element type 0"),
    "a cast to a type below 0": (lambda m: set_type(m, "Cast", "to", -1), "names element type -1"),
    "a norm that computes in no type": (lambda m: normed(m, 40), "names element type 40"),
    "an attribute that is not UTF-8": (
        lambda m: first(m, "Add").attribute.append(helper.make_attribute("a", b"\xff")),
        "not UTF-8",
    ),
    "a node listed twice": (lambda m: m.graph.node.append(first(m, "Add")), "is written twice"),
    "an initializer listed twice": (lambda m: m.graph.initializer.append(weight(m)), "two of one name"),
    "an initializer without a name": (lambda m: weight(m).ClearField("name"), "without a name"),
    "an input listed twice": (lambda m: m.graph.input.append(m.graph.input[0]), "two of one name"),
    "an output listed twice": (lambda m: m.graph.output.append(m.graph.output[0]), "two of one name"),
    "a node writes an input": (
        lambda m: m.graph.node.append(helper.make_node("Relu", ["logits"], ["input_ids"])),
        "is written twice",
    ),
    "a node writes an initializer": (
        lambda m: m.graph.node.append(helper.make_node("Relu", ["logits"], [weight(m).name])),
        "is written twice",
    ),
    "a tensor that nobody writes": (
        lambda m: m.graph.node.append(helper.make_node("Relu", ["nowhere"], ["end"])),
        "'nowhere' is read and written by nothing",
    ),
    "an output that nobody writes": (lambda m: setattr(m.graph.output[0], "name", "end"), "'end' is written by"),
    "no output": (lambda m: m.graph.ClearField("output"), "no outputs"),
    "a circle": (circle, "the graph has a circle"),
    # operators
    "too few inputs": (lambda m: first(m, "MatMul").input.pop(), "(MatMul) has 1 inputs; needed 2"),
    "too many inputs": (lambda m: first(m, "Softmax").input.append("logits"), "has 2 inputs; needed 1"),
    "no inputs": (lambda m: first(m, "Gather").ClearField("input"), "has 0 inputs; needed 2"),
    "an input left out": (lambda m: first(m, "MatMul").input.__setitem__(1, ""), "has no input 'B'"),
    "no outputs": (lambda m: first(m, "Add").ClearField("output"), "writes nothing"),
    "too many outputs": (lambda m: first(m, "Add").output.append("more"), "has 2 outputs; needed 1"),
    "another operator": (lambda m: setattr(first(m, "Gather"), "op_type", "If"), "needed 1"),
    "a contrib operator": (
        lambda m: m.graph.node.append(
            helper.make_node("SkipLayerNormalization", ["logits"], ["end"], domain="com.microsoft")
        ),
        "has 1 inputs; needed 3 to 5",
    ),
    "LayerNormalization before ONNX had it": (
        lambda m: (setattr(m.opset_import[0], "version", 13), first(m, "LayerNormalization").ClearField("input")),
        "has 0 inputs",
    ),
    # attributes
    "an attribute of another type": (
        lambda m: first(m, "Softmax").attribute[0].CopyFrom(helper.make_attribute("axis", 1.0)),
        "is FLOAT; needed INT",
    ),
    "a list for a number": (
        lambda m: first(m, "Softmax").attribute[0].CopyFrom(helper.make_attribute("axis", [1])),
        "is INTS; needed INT",
    ),
    "a type and another value": (lambda m: setattr(first(m, "Softmax").attribute[0], "type", 6), "holds i"),
    "an unknown type": (lambda m: setattr(first(m, "Softmax").attribute[0], "type", 0), "which ONNX does not know"),
    "a needed attribute is missing": (lambda m: first(m, "Cast").ClearField("attribute"), "has no attribute 'to'"),
    "an attribute twice": (
        lambda m: first(m, "Softmax").attribute.append(helper.make_attribute("axis", 1)),
        "has an attribute twice",
    ),
    "a reference outside of a function": (
        lambda m: setattr(first(m, "Softmax").attribute[0], "ref_attr_name", "axis"),
        "outside of a function",
    ),
    "an If with one branch": (
        lambda m: (nest(m, 1), m.graph.node[-1].attribute.pop()),
        "has no attribute",
    ),
    "an If whose branches give less": (
        lambda m: (nest(m, 1), m.graph.node[-1].output.append("more")),
        "has 2 outputs, a branch of it 1",
    ),
    "a Constant of nothing": (lambda m: first(m, "Constant").ClearField("attribute"), "has 0 attributes"),
    "a sparse constant": (
        lambda m: first(m, "Constant").attribute[0].CopyFrom(
            helper.make_attribute(
                "sparse_value",
                helper.make_sparse_tensor(
                    helper.make_tensor("v", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [1]), [4]
                ),
            )
        ),
        "is SPARSE_TENSOR, which is not read here",
    ),
    # tensors
    "fewer bytes than the shape": (lambda m: weight(m).dims.__setitem__(0, 77), "where shape [77"),
    "a negative size": (lambda m: weight(m).dims.__setitem__(0, -1), "impossible shape"),
    "an absurd size": (lambda m: weight(m).dims.__setitem__(0, 1 << 62), "needs"),
    "sizes whose product overflows": (
        lambda m: attribute(m, "Constant", "value").t.dims.extend([1 << 32, 1 << 32]),
        "holds",
    ),
    "a matrix without rows": (
        lambda m: (weight(m).dims.__setitem__(0, 0), weight(m).ClearField("raw_data")),
        "has no values",
    ),
    "an unknown element type": (lambda m: setattr(weight(m), "data_type", 99), "which ONNX does not know"),
    "no element type": (lambda m: setattr(weight(m), "data_type", 0), "which ONNX does not know"),
    "values of two kinds": (lambda m: small(m).float_data.append(1.0), "holds"),
    "values of the wrong kind": (
        lambda m: (small(m).ClearField("raw_data"), small(m).string_data.append(b"x")),
        "holds",
    ),
    "a segment": (lambda m: weight(m).segment.CopyFrom(TensorProto.Segment(begin=0, end=1)), "is a segment"),
    "a sparse initializer": (
        lambda m: m.graph.sparse_initializer.append(
            helper.make_sparse_tensor(
                helper.make_tensor("v", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [1]), [4]
            )
        ),
        "sparse initializers",
    ),
    "a constant in another file": (
        lambda m: outside(attribute(m, "Constant", "value").t, location="w.bin"),
        "data in another file",
    ),
    # external data
    **{
        f"data at {value!r}": (lambda m, value=value: outside(weight(m), location=value), "outside the model's folder")
        for value in ("", "/etc/passwd", "../w.bin", "a/../../w.bin", "w\0.bin", "x" * 5000)
    },
    **{
        f"{key} {value!r}": (
            lambda m, key=key, value=value: outside(weight(m), location="w.bin", **{key: value}),
            "does not fit 'w.bin'",
        )
        for key in ("offset", "length")
        for value in ("-1", "1e3", "9" * 4000, "x", "", "٣")
    },
    # interface
    "an input that is no tensor": (
        lambda m: m.graph.input[0].type.CopyFrom(
            helper.make_sequence_type_proto(helper.make_tensor_type_proto(7, [1]))
        ),
        "is no tensor of plain numbers",
    ),
    "an input without a shape": (lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"), "has no shape"),
    "an output without a shape": (lambda m: m.graph.output[0].type.tensor_type.ClearField("shape"), "has no shape"),
    "an input of no type": (lambda m: m.graph.input[0].ClearField("type"), "is no tensor of plain numbers"),
    "an input of float8": (
        lambda m: setattr(m.graph.input[1].type.tensor_type, "elem_type", TensorProto.FLOAT8E5M2),
        "(of FLOAT8E5M2)",
    ),
    "an output of an unknown type": (
        lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", 77),
        "(of unknown elements)",
    ),
    "an input of a billion tokens": (
        lambda m: [setattr(d, "dim_value", 1 << 15) for d in m.graph.input[0].type.tensor_type.shape.dim],
        "1,073,741,824 elements",
    ),
    # header
    "no IR version": (lambda m: m.ClearField("ir_version"), "IR version 0"),
    "an IR version to come": (lambda m: setattr(m, "ir_version", 9999), "IR version 9999"),
    "an opset to come": (lambda m: setattr(m.opset_import[0], "version", 500), "opset 500 is not known"),
    "opset 0": (lambda m: setattr(m.opset_import[0], "version", 0), "opset 0 is not known"),
    "no opset": (lambda m: m.ClearField("opset_import"), "whose version the file does not give"),
    "an operator of ONNX in a domain that has none": (
        lambda m: setattr(m.graph.node[0], "domain", "nobody"),
        "is no known operator of domain 'nobody'",
    ),
    "an operator that a later opset brought": (
        lambda m: setattr(m.graph.node[-1], "op_type", "RMSNormalization"),
        "RMSNormalization) is no known operator of opset 17",
    ),
    # bounds
    "too many nodes": (
        lambda m: m.graph.node.extend(helper.make_node("Relu", ["logits"], [f"r{i}"]) for i in range(12_001)),
        "more than 12,000 nodes",
    ),
    "too many initializers": (
        lambda m: m.graph.initializer.extend(
            TensorProto(name=f"r{i}", data_type=1, dims=[1], raw_data=b"0000") for i in range(30_001)
        ),
        "more than 12,000 nodes or 30,000 initializers",
    ),
    "graphs in graphs": (lambda m: nest(m, 20), "16 deep"),
    "a function that calls itself": (lambda m: functions(m, ["F0"]), "calls itself"),
    "functions in a circle": (lambda m: functions(m, ["F1"], ["F2"], ["F0"]), "calls itself"),
    "functions that double": (
        lambda m: functions(m, *([f"F{i + 1}"] * 2 for i in range(24)), ["Relu"]),
        "unfold to 16,777,",
    ),
    "functions in functions": (
        lambda m: functions(m, *([f"F{i + 1}"] for i in range(80)), ["Relu"]),
        "50 deep",
    ),
    **{
        f"a constant that unfolds by {operator}": (
            lambda m, operator=operator: unfold(m, operator),
            "makes constants of",
        )
        for operator in ("ConstantOfShape", "Expand", "Tile", "Concat", "Add")
    },
    "a constant that unfolds beside a node of a set that is not imported": (
        lambda m: (m.graph.node.insert(0, fused_gelu(m)), unfold(m, "Concat")),
        "makes constants of",
    ),
    "two functions of one name": (
        lambda m: (functions(m, ["Relu"]), m.functions.append(m.functions[0])),
        "have one name",
    ),
}  # fmt: skip


def written(tmp_path: Path, name: str, change: Change) -> Path:
    """The changed model in a file."""
    model = onnx.load(fixture("bert-ts17-sdpa"))
    change(model)
    data = model.SerializeToString()
    if name == "a name that is not UTF-8":
        data = data.replace(b"input_ids", b"input_\xf8ds")
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_model_can_be_is_refused_where_it_is_read(tmp_path, name):
    change, said = REFUSED[name]
    path = written(tmp_path, name, change)
    with pytest.raises(ModelError, match=re.escape(said)) as caught:
        read_skeleton(path)
    assert str(path) in str(caught.value)
    assert len(one_line(caught.value, None)) < 500
    assert one_line(caught.value, None).isprintable()


@pytest.mark.parametrize(
    ("axis", "size", "fixed"), [(0, 1 << 16, "65,536 rows"), (1, 1 << 19, "rows of 524,288 tokens")]
)
def test_inputs_that_fix_more_tokens_than_are_fed_are_refused(tmp_path, axis, size, fixed):
    """Whatever looks for the roles of inputs would run them: gigabytes, of a model of a few weights."""
    model = onnx.load(fixture("bert-ts17-sdpa"))
    model.graph.input[1].type.tensor_type.shape.dim[axis].dim_value = size
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=f"fixed at {fixed}; more than 262,144 tokens are not fed at once"):
        read_skeleton(tmp_path / "m.onnx")


@pytest.mark.parametrize("size", [-1, 0, -(1 << 40)])
def test_a_dimension_that_is_no_size_is_open(tmp_path, size):
    """ONNX Runtime takes any length where a file says -1 or 0; so does the model that is read."""
    model = onnx.load(fixture("bert-ts17-sdpa"))
    for value in [*model.graph.input, *model.graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            dimension.dim_value = size
    onnx.save(model, tmp_path / "m.onnx")
    assert all(
        dimension is None for tensor in Model.load(tmp_path / "m.onnx").graph.inputs for dimension in tensor.shape
    )


def test_names_may_hold_anything_and_are_escaped_where_they_are_said(tmp_path):
    model = onnx.load(fixture("bert-ts17-sdpa"))
    first(model, "MatMul").input.pop()
    first(model, "MatMul").name = "\x1b[31mred\n" + "x" * 10_000
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"node '\\x1b\[31mred\\nx+\.\.\.' \(MatMul\) has 1 inputs") as caught:
        read_skeleton(tmp_path / "m.onnx")
    assert len(str(caught.value)) < 400


def test_functions_are_put_in_place_and_checked_there(tmp_path):
    """A function's body is held to the same rules, once it is in the graph."""
    model = onnx.load(fixture("bert-ts17-sdpa"))
    functions(model, ["F1", "F1"], ["Relu"])
    model.graph.output[0].name = "end"
    onnx.save(model, tmp_path / "m.onnx")
    assert not any(node.domain == "own" for node in Model.load(tmp_path / "m.onnx").graph.nodes)
    model.functions[1].node[0].input.append("x")
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"\(Relu\) has 2 inputs; needed 1"):
        Model.load(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("domain", "operator"),
    [("", "Tanh"), ("ai.onnx", "Tanh"), ("com.microsoft", "Gelu"), ("com.microsoft", "Own"), ("own", "Tanh")],
)
def test_a_function_named_as_an_operator_does_what_it_does_in_onnxruntime(tmp_path, domain, operator):
    """Which runs its own operator, whatever the file's function says."""
    opsets = [
        helper.make_opsetid("", 17),
        helper.make_opsetid(domain or "com.microsoft", 1 if domain != "ai.onnx" else 17),
    ]
    body = [helper.make_node("Neg", ["x"], ["y"])]
    function = helper.make_function(domain, operator, ["x"], ["y"], body, opsets[:1])
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8), tmp_path / "m.onnx")
    feeds = {"x": np.array([1, -2], np.float32)}
    expected, actual = (
        ort.InferenceSession(data).run(None, feeds)
        for data in ((tmp_path / "m.onnx").read_bytes(), Model.load(tmp_path / "m.onnx").proto().SerializeToString())
    )
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("name", [*SOME, *(f"bert-{export}" for export in EXPORTS), "fused-attention", "fused-mha"])
def test_what_exporters_write_is_let_in(name):
    assert read_skeleton(fixture(name))[0].graph.node


def test_a_type_that_is_left_to_the_operator_is_let_in(tmp_path):
    """`output_dtype` is 0 where a quantizer writes it out unset."""
    model = onnx.load(fixture("bert-dynamo23-sdpa"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "step"))
    model.graph.node.append(helper.make_node("QuantizeLinear", ["logits", "step"], ["levels"], output_dtype=0))
    onnx.save(model, tmp_path / "m.onnx")
    assert read_skeleton(tmp_path / "m.onnx")[0].graph.node[-1].attribute[0].i == 0


def test_an_unsorted_graph_is_let_in(tmp_path):
    """ONNX Runtime sorts nodes itself; so does what reads the file."""
    model = onnx.load(fixture("bert-ts17-sdpa"))
    nodes = [*model.graph.node][::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "m.onnx")
    assert Model.load(tmp_path / "m.onnx").encoder.layers
