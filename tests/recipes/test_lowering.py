"""The recipes for CoreML and NNAPI: from any export, a graph that is predicted to run whole and answers the same."""

import numpy as np
import pytest
from graphs import SOME, feeds, fixture, prepared
from oracles import answers, assert_same_answers
from random_encoders import HEADS, Kind, encoder

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.recipes.lowering import lowering
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.targets.prediction.predict import predict


@pytest.mark.parametrize(("target", "atol"), [("coreml", 1e-5), ("nnapi", 3e-4)])
@pytest.mark.parametrize("name", SOME)
def test_every_family_is_taken_whole_and_answers_the_same(name, target, atol, tmp_path):
    form, then = lowering(target, "fp32", 7)
    model = prepared(name, *(step.action for step in form.steps))
    assert not then.steps
    model.save(tmp_path / "lowered.onnx")
    placement = predict(tmp_path / "lowered.onnx", target)
    assert placement.left == ()
    assert placement.whole
    given = feeds(model, 1, 7, "holes")
    wide = {name: values.astype(np.int64) for name, values in given.items()}
    (actual,), (expected,) = answers(model, [given]), answers(Model.load(fixture(name)), [wide], optimize=False)
    assert_same_answers(actual, expected, atol)


@pytest.mark.parametrize("target", ["coreml", "nnapi"])
@pytest.mark.parametrize("changed", [{"rotary": True}, {"bias": "table"}, {"bias": "alibi"}], ids=str)
def test_relative_and_rotary_positions_are_taken_whole(changed, target, tmp_path):
    """The runner compares the answers before and after the exact steps."""
    kind = Kind("none", 0, "none", False, HEADS, "layer", False, "none", "none", "input", 0, "states")
    model = encoder(Kind(**(vars(kind) | changed)))
    run_recipe(model, lowering(target, "fp32", 9)[0])
    model.save(tmp_path / "lowered.onnx")
    assert predict(tmp_path / "lowered.onnx", target).left == ()
