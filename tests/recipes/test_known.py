"""Recipes that ship are read by name, alone or among other steps."""

import pytest

from onnxslim_bert.errors import PassError
from onnxslim_bert.job.main_recipe import Quantization, main_recipe
from onnxslim_bert.recipes.known import known_recipes, read_recipe
from onnxslim_bert.recipes.recipe import Recipe


@pytest.mark.parametrize("name", known_recipes())
def test_every_recipe_that_ships_can_be_read(name):
    recipe = known_recipes()[name]
    assert read_recipe(f"@{name}") == Recipe.parse(recipe.steps)
    assert recipe.summary
    assert ("--calib" in recipe.summary) == read_recipe(f"@{name}").wants_calibration


def test_a_name_stands_for_its_steps_among_others():
    steps = known_recipes()["exact"].steps
    assert read_recipe("@exact, quantize-dynamic") == Recipe.parse(f"{steps},quantize-dynamic")
    assert read_recipe("share-weights,@exact") == Recipe.parse(f"share-weights,{steps}")


def test_text_without_names_is_a_recipe_as_ever():
    assert read_recipe("fuse?,quantize-static{method=mse}") == Recipe.parse("fuse?,quantize-static{method=mse}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@exakt", "no recipe '@exakt', did you mean 'exact'?; `onnxslim recipes` lists those that ship"),
        ("@", "no recipe '@'"),
        ("@exact{layers=2}", "a comma was needed before"),
    ],
)
def test_what_does_not_ship_is_refused(text, said):
    with pytest.raises(PassError) as caught:
        read_recipe(text)
    assert said in str(caught.value)


def test_the_int8_recipe_is_that_of_the_main_job():
    """On a CPU whose products do not saturate; `quantize` makes its recipe for the CPU at hand."""
    assert str(read_recipe("@int8")) == str(main_recipe(Quantization(reduce_range=False)))
