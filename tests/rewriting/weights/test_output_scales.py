"""A constant factor of what a layer adds to the stream becomes part of its matrix and bias."""

import numpy as np
import pytest
from graphs import every_padding, prepared
from oracles import assert_same_outputs

from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.spans import find_spans
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.rewriting.weights.output_scales import fold_output_scales


def scaled(name: str, role: str, values: np.ndarray) -> Model:
    """A fixture in which the result of the matrix `role` of layer 1 is multiplied with `values`."""
    model = prepared(name, Canonicalize())
    result = model.graph.tensors()[model.encoder.layers[1].linears[role].result]
    readers, build = list(result.outputs), Builder(model.graph, "scale")
    product = build.node("Mul", "scaled", [result, build.constant("factor", values.astype(np.float32))])
    for node in readers:
        node.inputs = [product if tensor is result else tensor for tensor in node.inputs]
    model.graph.toposort()
    model.changed()
    return model


@pytest.mark.parametrize("values", [np.array(0.22), np.full((1, 1, 1), -3), np.linspace(-1, 2, 12)], ids=str)
@pytest.mark.parametrize("role", ["output", "down"])
@pytest.mark.parametrize("name", ["bert-ts17-eager", "distilbert-dynamo18-sdpa", "prenorm-dynamo20-sdpa"])
def test_answers_stay_and_what_is_added_is_the_result(name, role, values):
    model = scaled(name, role, values)
    wanted, size = model.clone(), len(model.graph.nodes)
    assert fold_output_scales(model) == 1
    assert len(model.graph.nodes) == size - 1
    assert_same_outputs(model, wanted, every_padding(model), atol=1e-5)
    assert len(find_spans(model)) == len(model.encoder.layers)


@pytest.mark.parametrize(
    ("name", "role"),
    [("bert-ts17-eager", "query"), ("bert-ts17-eager", "up"), ("albert-ts17-eager", "output")],
)
def test_a_factor_of_what_is_not_added_and_one_use_of_a_shared_matrix_stay(name, role):
    model = scaled(name, role, np.array(0.5))
    text = model.fingerprint()
    assert fold_output_scales(model) == 0
    assert model.fingerprint() == text
