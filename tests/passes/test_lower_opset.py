"""An older opset: the same bits, said in what that opset knows, and refused where it does not know."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from graphs import SOME, apply, every_padding, prepared
from oracles import answers

from onnxslim_bert.errors import PassError
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.gelu_tanh import GeluTanh
from onnxslim_bert.passes.lower_opset import LowerOpset, why_not
from onnxslim_bert.passes.unfuse_norms import UnfuseNorms
from onnxslim_bert.rewriting.contract import Context

STEPS = (Canonicalize(), Fuse(style="standard"), GeluTanh(), UnfuseNorms())
LOWER = LowerOpset()


@pytest.mark.parametrize("name", SOME)
def test_no_bit_changes_and_the_checker_accepts_it(name):
    before, model = prepared(name, *STEPS), prepared(name, *STEPS, LOWER)
    assert [entry.version for entry in model.proto().opset_import if not entry.domain] == [16]
    onnx.checker.check_model(model.proto(), full_check=True)
    given = every_padding(model)
    pairs = zip(answers(before, given, optimize=False), answers(model, given, optimize=False), strict=True)
    for expected, actual in pairs:
        for output, values in expected.items():
            np.testing.assert_array_equal(actual[output], values)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (STEPS[:2], r"\((Gelu|LayerNormalization)\) is not in opset 16$"),
        (STEPS[:3], r"\(LayerNormalization\) is not in opset 16$"),
    ],
)
def test_an_operator_that_is_newer_is_refused(steps, reason):
    model = prepared("bert-dynamo20-sdpa", *steps)
    before = model.fingerprint()
    with pytest.raises(PassError, match=rf"^lower-opset: node '.*' {reason}"):
        LOWER.apply(model, Context())
    assert model.fingerprint() == before


def node(op: str, *inputs: gs.Tensor, **attributes: object) -> gs.Node:
    return gs.Node(op, "n", attributes, list(inputs), [gs.Variable("y")])


X, AXES = gs.Variable("x"), gs.Constant("axes", np.array([-1]))


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (node("ReduceMean", X, AXES, keepdims=1), ""),
        (node("ReduceSum", X, AXES, keepdims=1), ""),
        (node("ReduceMean", X, AXES, noop_with_empty_axes=0), ""),
        (node("ReduceMean", X, noop_with_empty_axes=1), "has the attribute 'noop_with_empty_axes', unknown at"),
        (node("ReduceMean", X, gs.Variable("axes")), "computes the axes that are fixed at"),
        (node("Split", X, num_outputs=2), "has the attribute 'num_outputs', unknown at"),
        (node("Relu", X, X), "has 2 inputs, more than at"),
        (node("Gelu", X), "is not in"),
    ],
)
def test_each_reason(asked, reason):
    assert why_not(asked, 16) == reason


def test_an_opset_that_is_low_enough_is_left():
    model = prepared("bert-ts17-eager", *STEPS, LOWER)
    before = model.fingerprint()
    change = apply(LOWER, model)
    assert (bool(change), change.note) == (False, "the opset is 16 already")
    assert model.fingerprint() == before
