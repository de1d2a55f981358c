"""Sums as additions of two: bit for bit, and only where there are any."""

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from graphs import SOME, apply, every_padding, prepared
from oracles import answers

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.split_sums import SplitSums

CANONICAL, STANDARD, SPLIT = Canonicalize(), Fuse(style="standard"), SplitSums()


@pytest.mark.parametrize("name", SOME)
def test_no_sum_is_left_and_no_bit_changes(name):
    before, model = prepared(name, CANONICAL, STANDARD), prepared(name, CANONICAL, STANDARD, SPLIT)
    assert "Sum" not in {node.op for node in model.graph.nodes}
    given = every_padding(model)
    pairs = zip(answers(before, given, optimize=False), answers(model, given, optimize=False), strict=True)
    for expected, actual in pairs:
        for output, values in expected.items():
            np.testing.assert_array_equal(actual[output], values)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_sum_of_any_number(count):
    inputs = [gs.Variable(f"x{i}", np.float32, [3]) for i in range(count)]
    total = gs.Variable("y", np.float32, [3])
    graph = gs.Graph([gs.Node("Sum", "sum", inputs=inputs, outputs=[total])], inputs, [total], opset=17)
    proto = gs.export_onnx(graph)
    proto.ir_version = 10
    model = Model.from_proto(proto)
    assert apply(SPLIT, model)
    session = ort.InferenceSession(model.proto().SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {f"x{i}": np.full(3, 10.0**i, np.float32) for i in range(count)})
    np.testing.assert_array_equal(result, np.full(3, sum(10.0**i for i in range(count))))


def test_a_graph_without_sums_is_left():
    model = prepared("bert-ts17-eager", CANONICAL)
    before = model.fingerprint()
    change = apply(SPLIT, model)
    assert (bool(change), change.note) == (False, "the graph has no Sum")
    assert model.fingerprint() == before
