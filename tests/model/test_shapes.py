"""Types and shapes on tensors: what is inferred, what stays unknown, and contradictions."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import prepared

from onnxslim_bert.errors import ModelError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import has_fixed_shape, infer_shapes, renew_shapes
from onnxslim_bert.passes.canonicalize import Canonicalize


def model_of(nodes: list[gs.Node], inputs: list[gs.Tensor], outputs: list[gs.Tensor]) -> Model:
    proto = gs.export_onnx(gs.Graph(nodes, inputs, outputs, opset=17))
    proto.ir_version = 10
    return Model.from_proto(proto)


def test_types_and_shapes_are_written():
    x, shifted, positive = gs.Variable("x", np.float32, [3, 5]), gs.Variable("shifted"), gs.Variable("positive", bool)
    zero = gs.Constant("zero", np.array(0, np.float32))
    nodes = [
        gs.Node("Add", inputs=[x, zero], outputs=[shifted]),
        gs.Node("Greater", inputs=[shifted, zero], outputs=[positive]),
    ]
    model = model_of(nodes, [x], [positive])
    assert infer_shapes(model) == []
    tensors = model.graph.tensors()
    assert [(tensors[name].dtype, tensors[name].shape) for name in ("shifted", "positive")] == [
        (np.float32, [3, 5]),
        (np.bool_, [3, 5]),
    ]


def test_what_depends_on_values_stays_unknown():
    x, places = gs.Variable("x", np.float32, [3, 5]), gs.Variable("places", np.int64, [2, "n"])
    model = model_of([gs.Node("NonZero", inputs=[x], outputs=[places])], [x], [places])
    assert infer_shapes(model) == ["places"]
    assert not has_fixed_shape(model.graph.outputs[0])


def test_shapes_that_contradict_each_other_are_refused():
    x, y = gs.Variable("x", np.float32, [3, 5]), gs.Variable("y", np.float32, None)
    weight = gs.Constant("w", np.zeros((4, 2), np.float32))
    model = model_of([gs.Node("MatMul", "product", inputs=[x, weight], outputs=[y])], [x], [y])
    with pytest.raises(ModelError, match=r"^shapes of the graph contradict each other: "):
        infer_shapes(model)


def test_open_inputs_are_left_without_shapes():
    model = prepared("bert-ts17-eager", Canonicalize())
    renew_shapes(model)
    assert not any(tensor.shape for node in model.graph.nodes for tensor in node.outputs if tensor.name != "logits")
