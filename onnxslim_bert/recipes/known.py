"""Recipes that ship, by name: TOML files in `shipped` with a `summary` and `steps`."""

import re
import tomllib
from dataclasses import dataclass
from importlib import resources

from onnxslim_bert.errors import PassError
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.rewriting.options import nearest

NAMED = re.compile(r"@([A-Za-z0-9_-]*)")


@dataclass(frozen=True)
class Known:
    """A recipe that ships.

    summary: what it makes of a model, and the data that it needs, in a line. steps: its passes, as recipe text.
    """

    summary: str
    steps: str


def known_recipes() -> dict[str, Known]:
    """Every recipe that ships, by name."""
    files = sorted(resources.files("onnxslim_bert.recipes").joinpath("shipped").iterdir(), key=lambda file: file.name)
    tables = {file.name.removesuffix(".toml"): tomllib.loads(file.read_text("utf-8")) for file in files}
    return {name: Known(table["summary"], ",".join(table["steps"])) for name, table in tables.items()}


def read_recipe(text: str) -> Recipe:
    """The recipe written as `text`, in which `@NAME` stands for the steps of the recipe that ships under that name.

    Example: `@exact,quantize-dynamic` is the recipe `exact` with one more step. Raises PassError for an unknown name,
    and as `Recipe.parse` does.
    """
    return Recipe.parse(NAMED.sub(lambda found: _steps(found[1]), text))


def _steps(name: str) -> str:
    every = known_recipes()
    if name not in every:
        raise PassError(f"no recipe '@{name}'{nearest(name, every)}; `onnxslim recipes` lists those that ship")
    return every[name].steps
