"""Corrections of layers that had no bias take a byte a column, and no time when the model runs."""

import numpy as np
import onnx
import pytest
from oracles import answers, optimized

from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.linear import read_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.int8.layers import WIDE, Format, Int8Writer

D_IN = 7


def corrected(width: int, correction: np.ndarray, bias: np.ndarray | None = None, form: Format = "contrib") -> Model:
    """x [N, 7] times a matrix of `width` columns, with a bias if one is given, quantized with the correction."""
    last = "y = Add(m, bias)" if bias is not None else "y = Identity(m)"
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        main (float[N, {D_IN}] x) => (float[N, {width}] y) {{ m = MatMul(x, w) {last} }}"""
    )
    weight = np.random.default_rng(0).standard_normal((D_IN, width)).astype(np.float32)
    given = {"w": weight} | ({"bias": bias} if bias is not None else {})
    model.graph.initializer.extend(onnx.numpy_helper.from_array(values, name) for name, values in given.items())
    made = Model.from_proto(model)
    linear = read_linear(made.graph.nodes[0])
    Int8Writer(made, form).static(linear, np.array(0.02, np.float32), np.array(128, np.uint8), correction)
    made.changed()
    return made


def stored(model: Model) -> set[str]:
    """The types of the constants as long as the result is wide, but for the scales of the weight."""
    width = model.graph.outputs[0].shape[1]
    found = model.constants().values()
    return {str(c.values.dtype) for c in found if c.values.shape == (width,) and "scales" not in c.name}


def test_a_correction_alone_takes_a_byte_a_column():
    """It moves results by what it is, within half of its largest value's 127th part; nothing is left to compute."""
    correction = np.linspace(-0.3, 0.2, WIDE).astype(np.float32)
    model, plain = corrected(WIDE, correction), corrected(WIDE, np.zeros(WIDE, np.float32))
    assert stored(model) == {"int8"}
    rows = [{"x": np.random.default_rng(1).standard_normal((3, D_IN)).astype(np.float32)}]
    moved = answers(model, rows)[0]["y"] - answers(plain, rows)[0]["y"]
    assert np.abs(moved - correction).max() <= 0.3 / 127 / 2 + 1e-6
    assert {node.op_type for node in optimized(model).node} <= {"QuantizeLinear", "MatMulIntegerToFloat", "Identity"}


def test_no_correction_is_no_bias():
    model = corrected(WIDE, np.zeros(WIDE, np.float32), np.zeros(WIDE, np.float32))
    product = next(node for node in model.graph.nodes if node.op == "MatMulIntegerToFloat")
    assert product.inputs[6].is_empty()


@pytest.mark.parametrize(
    ("width", "bias", "form"),
    [(WIDE - 1, None, "contrib"), (WIDE, np.ones(WIDE, np.float32), "contrib"), (WIDE, None, "qdq")],
    ids=["few columns", "a bias of its own", "standard operators"],
)
def test_other_biases_stay_float(width, bias, form):
    model = corrected(width, np.full(width, 0.1, np.float32), bias, form)
    assert stored(model) == {"float32"}
    biases = [constant(t) for n in model.graph.nodes for t in n.inputs if t.name.endswith("/bias")]
    np.testing.assert_allclose(biases[0], 0.1 if bias is None else 1.1)
