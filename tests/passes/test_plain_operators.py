"""Operators by others: the same bits, and only where there are any."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphs import apply, prepared

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.plain_operators import PlainOperators

PLAIN = PlainOperators()
CASES = {
    "neg": ("(float[2,3] x) => (float[2,3] y) {y = Neg(x)}", {"Mul"}),
    "neg of integers": ("(int64[2,3] x) => (int64[2,3] y) {y = Neg(x)}", {"Neg"}),
    "reciprocal": ("(float[2,3] x) => (float[2,3] y) {y = Reciprocal(x)}", {"Div"}),
    "shared keys": (
        "(float[2,1,3] x) => (float[2,4,3] y) <int64[3] s = {2, 4, 3}> {y = Expand(x, s)}",
        {"Concat"},
    ),
    "two axes": ("(float[1,1,3] x) => (float[2,4,3] y) <int64[3] s = {2, 4, 3}> {y = Expand(x, s)}", {"Expand"}),
    "an open shape": ("(float[b,1,3] x) => (float[b,4,3] y) <int64[3] s = {1, 4, 1}> {y = Expand(x, s)}", {"Expand"}),
    "a longer shape": ("(float[1,3] x) => (float[4,1,3] y) <int64[3] s = {4, 1, 3}> {y = Expand(x, s)}", {"Expand"}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_operator_gives_the_same_bits(case):
    text, operators = CASES[case]
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 17]> g {text}')
    model = Model.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))
    change = apply(PLAIN, model)
    assert {node.op for node in model.graph.nodes} == operators
    assert bool(change) == (operators != {node.op_type for node in proto.graph.node})
    kind = np.int64 if "int64[2,3] x" in text else np.float32
    shape = [size.dim_value or 2 for size in proto.graph.input[0].type.tensor_type.shape.dim]
    given = {"x": np.random.default_rng(0).integers(1, 9, shape).astype(kind)}
    before, after = (
        ort.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, given)[0]
        for each in (proto, model.proto())
    )
    np.testing.assert_array_equal(after, before)


def test_a_graph_without_them_is_left():
    model = prepared("bert-ts17-eager", Canonicalize())
    before = model.fingerprint()
    change = apply(PLAIN, model)
    assert (bool(change), change.note) == (False, "the graph has no Neg, no Reciprocal and no Expand along one axis")
    assert model.fingerprint() == before
