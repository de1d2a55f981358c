"""A newer opset is declared only where every node means the same in it."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from onnxslim_bert.graph.opsets import raise_opset


def graph(*nodes: onnx.NodeProto, opset: int) -> gs.Graph:
    """`nodes` on an input x [2, 3] that give y."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
    made = helper.make_graph(nodes, "graph", [x], [y])
    return gs.import_onnx(helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)]))


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        (helper.make_node("Relu", ["x"], ["y"], name="n"), 13),
        (helper.make_node("ReduceMin", ["x"], ["y"], name="n", keepdims=0), 17),
        (helper.make_node("Softmax", ["x"], ["y"], name="n", axis=1), 13),
        (helper.make_node("Relu", ["x"], ["y"], name="n"), 24),
    ],
    ids=["more types", "an input more, which may be left out", "nothing changed", "newer already"],
)
def test_what_means_the_same_is_raised(node, opset):
    made = graph(node, opset=opset)
    assert raise_opset(made, 23) == ""
    assert made.opset == max(opset, 23)
    onnx.checker.check_model(gs.export_onnx(made))


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        (helper.make_node("Pad", ["x"], ["y"], name="n", pads=[0, 0, 1, 1]), 10),
        (helper.make_node("Softmax", ["x"], ["y"], name="n", axis=1), 11),
        (helper.make_node("ThresholdedRelu", ["x"], ["y"], name="n"), 9),
    ],
    ids=["an attribute became an input", "the same words mean more", "not there yet"],
)
def test_what_changed_is_named_and_nothing_is_raised(node, opset):
    made = graph(node, opset=opset)
    assert raise_opset(made, 23) == f"node 'n' ({node.op_type}) may mean another thing at opset 23 than at {opset}"
    assert made.opset == opset


REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        *(
            (helper.make_node(f"Reduce{kind}", ["x"], ["y"], name="n", axes=[-1], keepdims=0), 12)
            for kind in REDUCTIONS
        ),
        (helper.make_node("Unsqueeze", ["x"], ["y"], name="n", axes=[0, 2]), 11),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else str(value),
)
def test_axes_become_an_input_where_they_are_one(node, opset):
    made = graph(node, opset=opset)
    before = answers(made)
    assert raise_opset(made, 23) == ""
    assert "axes" not in made.nodes[0].attrs
    np.testing.assert_array_equal(answers(made), before)


def answers(made: gs.Graph) -> np.ndarray:
    """y, of an x of six numbers."""
    made.outputs[0].shape = None
    session = ort.InferenceSession(gs.export_onnx(made).SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], {"x": np.arange(1, 7, dtype=np.float32).reshape(2, 3)})
    return np.asarray(y)


@pytest.mark.parametrize(
    ("inside", "refused"),
    [
        (helper.make_node("ReduceMin", ["x"], ["z"], name="inside", axes=[1]), ""),
        (helper.make_node("AveragePool", ["x"], ["z"], name="inside", kernel_shape=[1]), "node 'inside' (AveragePool)"),
    ],
    ids=["axes", "another thing"],
)
def test_branches_are_looked_into(inside, refused):
    """They have the opset of the graph around them."""
    branches = [
        helper.make_graph([inside], name, [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
        for name in ("one", "other")
    ]
    chosen = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
    choice = helper.make_node("If", ["c"], ["y"], name="n", then_branch=branches[0], else_branch=branches[1])
    made = graph(chosen, choice, opset=17)
    before = None if refused else answers(made)
    assert raise_opset(made, 23).startswith(refused)
    assert refused or made.opset == 23
    if not refused:
        np.testing.assert_array_equal(answers(made), before)
