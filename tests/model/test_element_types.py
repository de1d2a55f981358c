"""Types that are told from the nodes above a tensor are those that ONNX infers, and a Cast to one's own type goes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxslim_bert.model.element_types import element_type
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.simplify import drop_no_effect

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("*-[es][ad][gp]*.onnx"))  # -eager and -sdpa


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_what_is_told_is_what_onnx_infers(path):
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    inferred = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
    model, known = Model.load(path), dict[str, int | None]()
    told = {name: element_type(tensor, known) for name, tensor in model.graph.tensors().items()}
    compared = [name for name in told if inferred.get(name) and told[name] is not None]
    assert {name: told[name] for name in compared} == {name: inferred[name] for name in compared}
    assert len(compared) > 50


def chain(*ops: tuple[str, dict[str, int]]) -> Model:
    """float "x" sent through the operators, one after the other, to "y"."""
    names = ["x", *(f"t{place}" for place in range(1, len(ops))), "y"]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]], **attributes) for i, (op, attributes) in enumerate(ops)]
    last = next(attributes["to"] for op, attributes in reversed(ops) if op == "Cast")
    ends = [helper.make_tensor_value_info(n, t, [2, "n"]) for n, t in (("x", TensorProto.FLOAT), ("y", last))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    return Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


TO = {name: ("Cast", {"to": getattr(TensorProto, name)}) for name in ("FLOAT", "FLOAT16", "INT64", "BOOL")}


@pytest.mark.parametrize(
    ("ops", "left"),
    [
        ([TO["FLOAT"], ("Neg", {}), TO["FLOAT"], TO["FLOAT"], ("Relu", {})], ["Neg", "Relu"]),
        ([("Shape", {}), TO["INT64"], ("Neg", {}), TO["INT64"], TO["FLOAT"]], ["Shape", "Neg", "Cast"]),
        ([TO["FLOAT16"], ("Neg", {}), TO["FLOAT"], ("Neg", {})], ["Cast", "Neg", "Cast", "Neg"]),
        ([TO["FLOAT16"], TO["FLOAT"]], ["Cast", "Cast"]),
        ([("IsNaN", {}), TO["BOOL"], ("Not", {}), TO["FLOAT"]], ["IsNaN", "Not", "Cast"]),
    ],
)
def test_casts_that_change_nothing_go(ops, left):
    model = chain(*ops)
    drop_no_effect(model.graph)
    assert [node.op for node in model.graph.nodes] == left


def test_a_long_chain_is_looked_through_once():
    """As many tensors again are twice the work, not four times."""
    model, known = chain(*[("Neg", {})] * 3000, TO["FLOAT"]), dict[str, int | None]()
    last = model.graph.outputs[0].inputs[0].inputs[0]
    assert element_type(last, known) == TensorProto.FLOAT
    assert len(known) == 3001
    assert np.all([kind == TensorProto.FLOAT for kind in known.values()])
