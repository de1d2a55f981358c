"""The range method is the one that moves the outputs least on rows that were held back."""

import pytest
from graphs import prepared, trials

from onnxslim_bert.calibration.ranges import METHODS
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe


def test_the_least_damage_wins():
    """Measured for every method on the held-back rows; the model is quantized with the best, as asked otherwise."""
    model = prepared("bert-ts17-eager", Canonicalize(), Fuse())
    on_rows = trials(model)
    (done,) = run_recipe(model, Recipe.parse("quantize-static{method=best,format=qdq,embeddings=false}"), on_rows)
    errors = done.details["methods"]
    assert list(errors) == list(METHODS)
    assert len(set(errors.values())) > 1
    best = min(errors, key=errors.get)
    assert Recipe.parse(done.step) == Recipe.parse(f"quantize-static{{method={best},format=qdq,embeddings=false}}")
    assert done.count == 18
    assert on_rows.damage(model) == pytest.approx(errors[best])
