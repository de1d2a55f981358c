"""What a mask decides is looked up where that is the same thing, and left where it is not."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxslim_bert.graph.edit import sort_nodes
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import infer_shapes
from onnxslim_bert.rewriting.mask_lookups import look_up_terms

REAL = "r = Cast<to=9>(m) k = Unsqueeze(r, axes)"
CASES = {  # what is computed of the mask m [2, 5] and of x [2, 3, 5, 5], and whether it is looked up
    "a choice that hides": (f"{REAL} h = Where(k, x, low) y = Softmax(h)", True),
    "the other way round": (f"{REAL} n = Not(k) h = Where(n, low, x) y = Softmax(h)", True),
    "with a guard": (f"{REAL} h = Where(k, x, low) s = Softmax(h) g = IsNaN(s) y = Where(g, zero, s)", True),
    "a choice of zeros": (f"{REAL} h = Where(k, x, zero) y = Tanh(h)", True),
    "a choice of other numbers": (f"{REAL} h = Where(k, x, one) y = Tanh(h)", False),
    "an addition": (f"{REAL} f = Cast<to=1>(k) d = Sub(one, f) b = Mul(d, low) h = Add(x, b) y = Softmax(h)", True),
    "a product": (f"{REAL} f = Cast<to=1>(k) y = Mul(x, f)", True),
    "some of it added": (f"{REAL} f = Cast<to=1>(k) y = Add(x, f)", True),
    "a mean over the mask": ("f = Cast<to=1>(m) k = Unsqueeze(f, axes) s = ReduceSum(k) y = Div(x, s)", False),
    "what grows by it": ("f = Cast<to=1>(m) k = Unsqueeze(f, axes) s = Slice(x, nil, fst, last) y = Mul(s, k)", False),
}
CONSTANTS = (
    "int64[2] axes = {1, 2}, float low = {-20000}, float zero = {0}, float one = {1}, int64[1] nil = {0}, "
    "int64[1] fst = {1}, int64[1] last = {3}"
)


@pytest.mark.parametrize("case", CASES)
def test_what_it_decides_is_looked_up_and_answers_stay(case):
    nodes, looked_up = CASES[case]
    text = f"(int64[2,5] m, float[2,3,5,5] x) => (float[2,3,5,5] y) <{CONSTANTS}> {{{nodes}}}"
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 17]> g {text}')
    model = Model.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))
    infer_shapes(model)
    assert bool(look_up_terms(model.graph, -1e4)) == looked_up
    model.graph.cleanup()
    sort_nodes(model.graph)
    assert ("Cast" in {node.op for node in model.graph.nodes}) != looked_up
    assert "IsNaN" not in {node.op for node in model.graph.nodes}
    rng = np.random.default_rng(0)
    given = {"x": rng.standard_normal((2, 3, 5, 5)).astype(np.float32)}
    for mask in ([[1, 1, 1, 1, 1]] * 2, [[1, 0, 1, 0, 0], [0, 0, 0, 0, 1]]):
        before, after = (
            ort.InferenceSession(each.SerializeToString()).run(None, given | {"m": np.array(mask)})[0]
            for each in (proto, model.proto())
        )
        np.testing.assert_allclose(after, before, atol=1e-6)
    assert not look_up_terms(model.graph, -1e4)
