"""What int8 does to each layer: measured as a recipe that names the layer would show it."""

import pytest
from graphs import prepared, trials

from onnxslim_bert.errors import PassError
from onnxslim_bert.job.search import sensitivity
from onnxslim_bert.job.search.sensitivity import layer_sensitivities
from onnxslim_bert.job.search.tables import best_static
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe

EXACT = Canonicalize(), Fuse()
PREPARED = "first-token?,split-outliers?,smooth?"


def damage_of(model: Model, step: str) -> float:
    """Of the model that PREPARED and `step` make."""
    made = model.clone()
    run_recipe(made, Recipe.parse(f"{PREPARED},{step}"), trials(model))
    return trials(model).damage(made)


def test_each_layer_is_what_its_recipe_shows():
    model = prepared("bert-ts17-sdpa", *EXACT)
    probe = model.clone()
    run_recipe(probe, Recipe.parse(PREPARED), trials(model))
    method = best_static(probe, trials(model)).method
    found = layer_sensitivities(model, trials(model))
    layers = [layer.index for layer in model.encoder.layers]
    assert [one.layer for one in found] == layers
    for one in found:
        others = "/".join(str(layer) for layer in layers if layer != one.layer)
        alone = f"quantize-static{{method={method},embeddings=false,float-layers={others}}}"
        spared = f"quantize-static{{method={method},float-layers={one.layer}}}"
        assert one.alone == pytest.approx(damage_of(model, alone), rel=1e-4)
        assert one.spared == pytest.approx(damage_of(model, spared), rel=1e-4)
    assert len({one.alone for one in found}) == len(layers)
    assert model.fingerprint() == prepared("bert-ts17-sdpa", *EXACT).fingerprint()


def test_layers_that_share_all_matrices_cannot_be_told_apart():
    model = prepared("albert-ts17-sdpa", *EXACT)
    with pytest.raises(PassError, match=r"all 3 layers share their matrices .*: none can be int8 alone"):
        layer_sensitivities(model, trials(model))


def test_layers_that_share_some_matrices_have_one_value():
    tied = prepared("bert-ts17-sdpa", *EXACT)
    run_recipe(tied, Recipe.parse("share-weights{groups=2}"), trials(tied), allow_noop=True)
    found = layer_sensitivities(tied, trials(tied))
    assert [one.layer for one in found] == [0, 1, 2]
    assert len({one.alone for one in found}) == 2


def test_too_many_layers_are_not_tried(monkeypatch):
    monkeypatch.setattr(sensitivity, "MOST", 2)
    model = prepared("bert-ts17-sdpa", *EXACT)
    with pytest.raises(PassError, match="3 layers: at most 2 are tried one by one"):
        layer_sensitivities(model, trials(model))
