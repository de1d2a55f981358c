"""ONNX Runtime's own norms, which only files that its session saved hold, become standard operators at any opset."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from oracles import assert_same_outputs

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.rms_norm import spell_rms_norms
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.rewriting.contract import Context

FEEDS = {name: np.random.default_rng(i).standard_normal((2, 3, 5)).astype(np.float32) for i, name in enumerate("xs")}


def normed(op: str, opset: int = 17, outputs: int = 1, **attributes: object) -> Model:
    """x and s [batch, seq, 5] -> the norm of x, or of x + s + bias, and of that what `outputs` asks for."""
    gamma, bias = (gs.Constant(n, np.arange(1, 6, dtype=np.float32) / size) for n, size in (("gamma", 3), ("bias", 7)))
    x, s = (gs.Variable(name, np.dtype(np.float32), ["batch", "seq", 5]) for name in "xs")
    is_skip = op.startswith("Skip")
    inputs = [x, s, gamma, bias] if is_skip else [x, gamma]
    written = [gs.Variable(f"y{i}", np.dtype(np.float32)) for i in range(outputs)]
    node = gs.Node(op, "norm", attributes, inputs, written, domain="com.microsoft" if is_skip else "")
    sums = gs.Variable("sums", np.dtype(np.float32), ["batch", "seq", 5])
    last = gs.Node("Add", "last", {}, [written[0], written[-1] if outputs > 1 else s], [sums])
    graph = gs.Graph([node, last], [x, s], [sums], opset=opset)
    graph.import_domains = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)]
    return Model.from_proto(gs.export_onnx(graph))


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
@pytest.mark.parametrize(
    ("op", "outputs"), [("SimplifiedLayerNormalization", 1), ("SkipSimplifiedLayerNormalization", 4)]
)
def test_canonicalize_writes_them_in_standard_operators(op, outputs, opset):
    model, before = (normed(op, opset, outputs, epsilon=1e-3) for _ in range(2))
    Canonicalize().apply(model, Context())
    assert {node.op for node in model.graph.nodes} == {"Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul"}
    onnx.checker.check_model(model.proto())
    assert_same_outputs(model, before, [FEEDS], atol=1e-6)


def test_half_precision_is_squared_in_float32():
    """300² is above what float16 holds."""
    gamma = gs.Constant("gamma", np.ones(4, np.float16))
    x, y = (gs.Variable(name, np.dtype(np.float16), ["batch", 4]) for name in "xy")
    graph = gs.Graph([gs.Node("SimplifiedLayerNormalization", "norm", {}, [x, gamma], [y])], [x], [y], opset=17)
    assert spell_rms_norms(graph) == 1
    session = ort.InferenceSession(gs.export_onnx(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": np.full((1, 4), 300, np.float16)})
    assert np.allclose(answer, 1, atol=1e-3)


def test_a_norm_over_other_axes_stays():
    assert spell_rms_norms(normed("SimplifiedLayerNormalization", axis=1).graph) == 0
