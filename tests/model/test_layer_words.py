"""Sets of layers in words."""

from dataclasses import replace

import pytest
from graphs import fixture

from onnxslim_bert.model.layer_words import numbered_layers, unproven
from onnxslim_bert.model.onnx_model import Model


@pytest.mark.parametrize(
    ("layers", "text"), [([3], "layer 3"), ([0, 1, 2, 5], "layers 0 to 2, 5"), ([1, 3], "layers 1, 3")]
)
def test_layers_are_numbered_in_runs(layers, text):
    assert numbered_layers(layers) == text


def test_a_reason_is_said_once_with_the_layers_that_have_it():
    """Names in quotes do not make it another; a layer that is proven is not among them."""
    plain = Model.load(fixture("bert-ts17-sdpa")).encoder.layers[0]
    reasons = ["it reads 'a'", "it reads 'b'", "", "a causal mask", "it reads 'c'"]
    layers = [
        replace(plain, index=i, reason=reason, form=None if reason else plain.form) for i, reason in enumerate(reasons)
    ]
    assert unproven(layers) == [
        ("layers 0 to 1, 4", "it reads 'a' (as layer 0 has it)"),
        ("layer 3", "a causal mask"),
    ]
    assert unproven(layers[2:3]) == []
