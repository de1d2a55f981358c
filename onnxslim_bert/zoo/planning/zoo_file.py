"""Read a zoo file: models, recipes, targets, data and budgets, checked before anything runs."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from onnxslim_bert.documents import read_whole
from onnxslim_bert.errors import DataError
from onnxslim_bert.recipes.lowering import LOWERINGS
from onnxslim_bert.rewriting.options import nearest
from onnxslim_bert.targets.table import TARGETS
from onnxslim_bert.zoo.planning.find_models import identity
from onnxslim_bert.zoo.planning.jobs import Jobs
from onnxslim_bert.zoo.planning.keys import DATA, DEFAULTS, RUN, Layer, Setting, read_table, values_of
from onnxslim_bert.zoo.planning.mistakes import Mistakes, ZooError
from onnxslim_bert.zoo.planning.model_entries import ModelEntry, names_of, read_models
from onnxslim_bert.zoo.planning.plan import PlannedJob, ZooPlan
from onnxslim_bert.zoo.planning.recipe_entries import RecipeEntry, read_recipes
from onnxslim_bert.zoo.planning.settings import Settings
from onnxslim_bert.zoo.planning.toml_lines import Place

TABLES = ("defaults", "recipes", "models", "run")
DEEPEST = 20  # tables and lists within each other; a zoo file has four


def read_zoo(path: Path) -> ZooPlan:
    """Read and check the zoo file at `path`; returns the plan. Relative paths in it are relative to its folder.

    A setting of a recipe goes before one of a model, and this before the defaults. Models are opened for a look at
    their structure and evaluation files are read for labels, but nothing runs. Raises ZooError with every mistake.
    """
    if not path.exists():
        raise ZooError((f"{path}: no such file; `onnxslim zoo init DIR` writes one",))
    try:
        text = read_whole(path, "a TOML file").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ZooError((f"{path}: byte 0x{error.object[error.start]:02x} is not UTF-8: needed a TOML file",)) from None
    except DataError as error:
        raise ZooError((str(error),)) from None
    return parse_zoo(text, path)


def parse_zoo(text: str, path: Path) -> ZooPlan:
    """`read_zoo` for a `text` that would lie at `path`."""
    document = _document(text, path)
    mistakes = Mistakes(path.name, text)
    for key in document.keys() - set(TABLES):
        mistakes.add((key,), f"no table [{key}]{nearest(key, TABLES) or ': there are ' + ', '.join(TABLES)}")
    run = values_of(read_table(document.get("run", {}), RUN, ("run",), mistakes))
    if not run.get("time", True):
        for key in {"rounds", "batch", "length"} & run.keys():
            mistakes.add(("run", key), f"{key} does nothing with time = false")
    defaults = read_table(document.get("defaults", {}), DEFAULTS, ("defaults",), mistakes)
    recipes = read_recipes(document.get("recipes", {}), mistakes)
    if run.get("time", True) and len(recipes) > 1:
        for recipe in recipes.values():
            if "threads" in recipe.settings:
                reason = "recipes of a model are timed together, with as many; give them to the model or in [defaults]"
                mistakes.add(recipe.settings["threads"].place, f"threads of one recipe: {reason}")
    entries = read_models(document.get("models", []), path.parent, mistakes)
    jobs = _jobs(defaults, recipes, entries, Jobs(path.parent, run.get("time", True), mistakes), mistakes)
    mistakes.check()
    named = {identity(job.source) for job in jobs}
    written = {identity(file): file for entry in entries for file in entry.written}
    return ZooPlan(path, tuple(jobs), **run, written=tuple(file for at, file in written.items() if at not in named))


def _document(text: str, path: Path) -> dict[str, Any]:
    """Parse TOML. Raises ZooError when the text is not valid, or nests tables and lists more than DEEPEST times."""
    try:
        document = tomllib.loads(text)
        level: list[Any] = [document]
        for _ in range(DEEPEST):
            tables = [
                value.values() if isinstance(value, dict) else value
                for value in level
                if isinstance(value, dict | list)
            ]
            level = [inner for table in tables for inner in table]
        if not level:
            return document
        raise RecursionError
    except RecursionError:
        raise ZooError((f"{path.name}: nested too deeply to be a zoo file",)) from None
    except ValueError as error:  # its own error is one, and so is that of a number too long to read
        place = re.search(r" \(at line (\d+), column \d+\)", str(error))
        line = place[1] if place else text.count("\n") + 1
        message = str(error).replace(place[0], "") if place else str(error)
        raise ZooError((f"{path.name}:{line}: not TOML: {message}",)) from None


def _jobs(
    defaults: Layer, recipes: Mapping[str, RecipeEntry], entries: Sequence[ModelEntry], jobs: Jobs, mistakes: Mistakes
) -> list[PlannedJob]:
    """Every job, model by model."""
    names = names_of(entries, mistakes)
    found: list[PlannedJob | None] = []
    ran: dict[Place, Layer] = {}
    for entry in entries:
        chosen = {**defaults, **entry.settings}
        wanted = _known(chosen.get("recipes"), recipes, list(recipes), mistakes)
        targets = _known(chosen.get("targets"), TARGETS, ["cpu"], mistakes)
        for source, name, target in product(entry.sources, wanted, targets):
            recipe = recipes[name]
            layers = defaults, entry.settings, recipe.settings
            ran |= {entry.place: entry.settings, recipe.place: recipe.settings}
            if target != "cpu" and LOWERINGS[target].is_fixed and not any("seq" in layer for layer in layers):
                place = (*chosen["targets"].place, chosen["targets"].value.index(target))
                mistakes.add(place, f"{target} takes fixed shapes only: give seq, the tokens in a row, like seq = 128")
                Settings(layers, jobs.used).take_all()
            else:
                found.append(jobs.plan(names[source], source, (*entry.place, "path"), recipe, target, layers))
    for layer in ran.values():
        for key, setting in layer.items():
            if key in (*DATA, "tokenizer") and setting.place not in jobs.used:
                hint = "; evaluation texts are named with data" * (key == "calib")
                mistakes.add(setting.place, f"{key} does nothing: no job that it is for reads it{hint}")
    return [job for job in found if job is not None]


def _known(setting: Setting | None, known: Mapping[str, Any], default: list[str], mistakes: Mistakes) -> list[str]:
    """The names in a list that are known, others being mistakes; `default` where there is no list."""
    if setting is None:
        return default
    for index, name in enumerate(setting.value):
        if name not in known:
            what = str(setting.place[-1]).removesuffix("s")
            hint = nearest(name, known) or f": there are {', '.join(known) or 'none'}"
            mistakes.add((*setting.place, index), f"no {what} {name!r}{hint}")
    return [name for name in setting.value if name in known]
