"""The [recipes.*] of a zoo file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxslim_bert.errors import PassError
from onnxslim_bert.recipes.known import read_recipe
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.zoo.planning.keys import MAIN_JOB, RECIPE, Layer, read_table, values_of
from onnxslim_bert.zoo.planning.mistakes import Mistakes
from onnxslim_bert.zoo.planning.readers import file_name
from onnxslim_bert.zoo.planning.toml_lines import Place


@dataclass(frozen=True)
class RecipeEntry:
    """One [recipes.NAME] of a zoo file: passes in a row, or the main job (passes is None) with these options of it."""

    name: str
    place: Place
    text: str
    passes: Recipe | None
    options: Mapping[str, Any]
    settings: Layer


def read_recipes(tables: Any, mistakes: Mistakes) -> dict[str, RecipeEntry]:
    """The recipes by name."""
    if not isinstance(tables, dict) or not tables:
        mistakes.add(("recipes",), 'no recipe: needed at least one, like [recipes.int8] with mode = "static"')
        return {}
    found: dict[str, RecipeEntry] = {}
    for name, values in tables.items():
        place = ("recipes", name)
        try:
            file_name(name)
        except ValueError as error:
            mistakes.add(place, f"recipe {name!r}: needed {error}")
        if name.casefold() in map(str.casefold, found):
            mistakes.add(place, f"recipe {name!r}: another has this name, capitals apart")
        found[name] = _recipe(name, place, read_table(values, RECIPE, place, mistakes), mistakes)
    return found


def _recipe(name: str, place: Place, given: Layer, mistakes: Mistakes) -> RecipeEntry:
    settings = {key: setting for key, setting in given.items() if key not in ("passes", *MAIN_JOB)}
    options = {key: setting for key, setting in given.items() if key in MAIN_JOB}
    if "passes" not in given:
        text = ",".join(f"{key}={_toml(setting.value)}" for key, setting in options.items())
        return RecipeEntry(
            name, place, f"quantize{{{text}}}" if text else "quantize", None, values_of(options), settings
        )
    for key, setting in options.items():
        mistakes.add(setting.place, f"{key} does nothing with passes; give it to a pass, or leave passes out")
    passes = Recipe(())
    try:
        passes = read_recipe(given["passes"].value)
    except PassError as error:
        mistakes.add(given["passes"].place, without_dashes(error))
    return RecipeEntry(name, place, str(passes), passes, {}, settings)


def without_dashes(error: Exception) -> str:
    """The message of `error` as for a zoo file: options without dashes, so "--mode static" is "mode static"."""
    return re.sub(r"--(?=[a-z])", "", str(error).replace("--no-smooth", "smooth = false"))


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
