"""A newer opset is declared only where every node means the same in it."""

import onnx
import onnx_graphsurgeon as gs
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
        (helper.make_node("ReduceMin", ["x"], ["y"], name="n", axes=[1]), 17),
        (helper.make_node("Softmax", ["x"], ["y"], name="n", axis=1), 11),
        (helper.make_node("ThresholdedRelu", ["x"], ["y"], name="n"), 9),
        (helper.make_node("Squeeze", ["x"], ["y"], name="n", axes=[0]), 11),
    ],
    ids=["an attribute became an input", "the same words mean more", "not there yet", "the axes of another"],
)
def test_what_changed_is_named_and_nothing_is_raised(node, opset):
    made = graph(node, opset=opset)
    assert raise_opset(made, 23) == f"node 'n' ({node.op_type}) may mean another thing at opset 23 than at {opset}"
    assert made.opset == opset


def test_branches_are_looked_into():
    """They have the opset of the graph around them."""
    branch = helper.make_graph(
        [helper.make_node("ReduceMin", ["x"], ["z"], name="inside", axes=[1])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    chosen = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
    made = graph(
        chosen, helper.make_node("If", ["c"], ["y"], name="n", then_branch=branch, else_branch=branch), opset=17
    )
    assert raise_opset(made, 23).startswith("node 'inside' (ReduceMin)")
