"""The example pass of CONTRIBUTING.md works as it stands there, alone and between any two passes of the main job."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from graphs import prepared, trials
from oracles import answers

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.recipes.recipe import Recipe, Step
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.contract import Change, Context, Pass

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
GIVEN = {
    "Pass": Pass,
    "Change": Change,
    "Context": Context,
    "Model": Model,
    "Builder": Builder,
    "PassError": PassError,
    "dataclass": dataclass,
    "ClassVar": ClassVar,
    "np": np,
}
MAIN = "canonicalize,fuse,first-token,split-outliers?,smooth,quantize-static,skip-mask"


@pytest.fixture
def clip_outliers() -> type[Pass]:
    """The class of the example."""
    (text,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {**GIVEN, "__name__": __name__}
    exec("\n".join(line[3:] for line in text.splitlines()), names)
    return names["ClipOutliers"]


def test_its_options_are_checked(clip_outliers):
    assert str(clip_outliers(limit=2.5)) == "clip-outliers{limit=2.5}"
    with pytest.raises(PassError, match=r"clip-outliers: limit=0 is not above 0"):
        clip_outliers(limit=0)
    with pytest.raises(PassError, match=r"clip-outliers: limit='a' is not of type float"):
        clip_outliers(limit="a")


@pytest.mark.parametrize("place", range(1, 8))
def test_it_works_between_any_two_passes_or_says_why_not(clip_outliers, place):
    """And what follows finds what it found without it: as many inputs are smoothed, as many layers quantized."""
    steps = list(Recipe.parse(MAIN).steps)
    plain, model = prepared("bert-ts17-sdpa"), prepared("bert-ts17-sdpa")
    on_rows = trials(prepared("bert-ts17-sdpa"))
    expected = {done.step: done.count for done in run_recipe(plain, Recipe(tuple(steps)), on_rows)}
    steps.insert(place, Step(clip_outliers(limit=1000.0)))
    if place > 5:  # behind quantization, where `down` reads integers
        with pytest.raises(PassError, match=r"clip-outliers broke the graph: types do not agree: .*Clip.*float"):
            run_recipe(model, Recipe(tuple(steps)), on_rows)
        return
    done = {done.step: done.count for done in run_recipe(model, Recipe(tuple(steps)), on_rows)}
    assert done.pop("clip-outliers{limit=1000.0}") == 3
    assert done["smooth"] == expected["smooth"]
    assert done["quantize-static"] == expected["quantize-static"]
    (batch, *_) = on_rows.held_back
    ours, theirs = (answers(each, [batch.feeds])[0]["logits"] for each in (model, plain))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.05)
