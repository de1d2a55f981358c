"""A convolution with a kernel of one token is a dense layer, in groups too."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from oracles import assert_same_outputs

from onnxslim_bert.model.linear import is_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.pointwise import spell_pointwise

FEEDS = {"x": np.random.default_rng(1).standard_normal((2, 12, 5)).astype(np.float32)}


def convolution(groups: int, kernel: int = 1, bias: bool = True, **attributes: object) -> Model:
    rng = np.random.default_rng(0)
    x = gs.Variable("x", np.dtype(np.float32), ["batch", 12, "seq"])
    y = gs.Variable("y", np.dtype(np.float32))
    weight = gs.Constant("w", rng.standard_normal((8, 12 // groups, kernel)).astype(np.float32))
    inputs = [x, weight] + [gs.Constant("b", rng.standard_normal(8).astype(np.float32))] * bias
    node = gs.Node("Conv", "conv", {"group": groups, "kernel_shape": [kernel], **attributes}, inputs, [y])
    return Model.from_proto(gs.export_onnx(gs.Graph([node], [x], [y], opset=17)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_it_becomes_a_product_for_each_group(groups, bias):
    model, before = convolution(groups, bias=bias), convolution(groups, bias=bias)
    assert spell_pointwise(model.graph) == 1
    model.changed()
    assert sum(map(is_linear, model.graph.nodes)) == groups
    assert_same_outputs(model, before, [FEEDS], atol=1e-5)


@pytest.mark.parametrize(
    "given", [{"kernel": 3}, {"strides": [2]}, {"pads": [1, 0]}, {"auto_pad": "SAME_UPPER"}], ids=str
)
def test_what_sees_other_tokens_stays(given):
    assert spell_pointwise(convolution(2, **given).graph) == 0
