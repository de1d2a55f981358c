"""int32 inputs: bit for bit the same answers, without a Cast where inputs are only looked up by."""

import numpy as np
import pytest
from graphs import EVERY, apply, every_padding, fixture, prepared
from oracles import answers

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.passes.int32_inputs import Int32Inputs
from onnxslim_bert.passes.mask_bias import MaskBias

CANONICAL, MASK, NARROW = Canonicalize(), MaskBias(), Int32Inputs()


@pytest.mark.parametrize("name", EVERY[::3])
def test_no_bit_changes(name):
    """As exported, where masks are compared and positions are counted from ids."""
    model, before = prepared(name, CANONICAL, NARROW), Model.load(fixture(name))
    assert {tensor.dtype for tensor in model.graph.inputs} == {np.dtype(np.int32)}
    narrow, wide = every_padding(model), every_padding(before)
    assert {values.dtype.name for given in narrow for values in given.values()} == {"int32"}
    pairs = zip(answers(before, wide, optimize=False), answers(model, narrow, optimize=False), strict=True)
    for expected, actual in pairs:
        for output, values in expected.items():
            np.testing.assert_array_equal(actual[output], values)


@pytest.mark.parametrize("name", ["bert-ts13-eager", "distilbert-dynamo20-sdpa", "albert-dynamo18-sdpa"])
def test_lookups_read_the_input_itself(name):
    model = prepared(name, CANONICAL, FixShapes(1, 5), MASK, NARROW)
    assert {node.op for tensor in model.graph.inputs for node in tensor.outputs} == {"Gather"}
    assert model.encoder.mask == "attention_mask"


def test_a_second_time_changes_nothing_and_says_so():
    model = prepared("bert-ts17-eager", CANONICAL, NARROW)
    before = model.fingerprint()
    change = apply(NARROW, model)
    assert (bool(change), change.note) == (False, "no input is int64")
    assert model.fingerprint() == before
