"""The keys of a zoo file, and what each may hold."""

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from onnxslim_bert.calibration.ranges import METHODS
from onnxslim_bert.errors import DataError, shown
from onnxslim_bert.job.main_recipe import Format
from onnxslim_bert.proof.tasks.table import TASKS
from onnxslim_bert.recipes.lowering import Mode
from onnxslim_bert.rewriting.options import nearest
from onnxslim_bert.zoo.planning.mistakes import Mistakes
from onnxslim_bert.zoo.planning.readers import (
    Reader,
    choice,
    columns,
    duration,
    file_name,
    flag,
    lengths,
    names,
    number,
    size,
    whole,
    words,
)
from onnxslim_bert.zoo.planning.toml_lines import Place


class Setting(NamedTuple):
    """A value that was read, and where it was written."""

    value: Any
    place: Place


Layer = Mapping[str, Setting]  # the settings of one table, budgets among them


BUDGETS: dict[str, Reader] = {
    "max-drop": number(-100, 100),
    "min-agreement": number(0, 100),
    "min-speedup": number(0, 1e6),
    "max-size": size,
    "min-cosine": number(-1, 1),
    "max-download": size,
}
DATA: dict[str, Reader] = {
    "calib": words,
    "data": words,
    "corpus": words,
    "rows": whole(1),
    "text-columns": columns,
    "label-column": words,
    "task": choice(tuple(TASKS)),
    "inputs": words,
    "output-name": words,
    "max-length": whole(1),
    "threads": whole(1, 1024),
    "seed": whole(0),
    "seq": lengths,
    "memory": size,
    "timeout": duration,
}
DEFAULTS: dict[str, Reader] = {**DATA, "recipes": names, "targets": names, "tokenizer": words}
MODEL: dict[str, Reader] = {**DEFAULTS, "path": words, "name": file_name}
MAIN_JOB: dict[str, Reader] = {
    "mode": choice(get_args(Mode)),
    "method": choice(METHODS),
    "format": choice(get_args(Format)),
    "smooth": flag,
    "batch": flag,
    "reduce-range": flag,
}
RECIPE: dict[str, Reader] = {**DATA, "passes": words, **MAIN_JOB}
RUN: dict[str, Reader] = {"time": flag, "study": flag, "rounds": whole(1), "batch": whole(1), "length": whole(1)}


def read_table(values: Any, keys: Mapping[str, Reader], place: Place, mistakes: Mistakes) -> dict[str, Setting]:
    """Read the table at `place`: a `Setting` for every key in `keys` with a valid value; the others are mistakes.

    Where `keys` are those of jobs, the keys of the table's `budgets` are among the result.
    """
    if not isinstance(values, dict):
        mistakes.add(place, f"{place[-1]} = {shown(values)}: needed a table")
        return {}
    found: dict[str, Setting] = {}
    has_budgets = "calib" in keys
    for key, value in values.items():
        at = (*place, key)
        if key == "budgets" and has_budgets:
            found |= read_table(value, BUDGETS, at, mistakes)
        elif key not in keys:
            mistakes.add(at, _unknown(key, place, [*keys, *["budgets"] * has_budgets]))
        else:
            try:
                found[key] = Setting(keys[key](value), at)
            except ValueError as error:
                mistakes.add(at, f"{key} = {shown(value)}: needed {error}")
            except DataError as error:
                mistakes.add(at, f"{key}: {error}")
    return found


def values_of(layer: Layer) -> dict[str, Any]:
    """Values by the names that they have in Python."""
    return {key.replace("-", "_"): setting.value for key, setting in layer.items()}


def _unknown(key: str, place: Place, known: list[str]) -> str:
    table = ".".join(part for part in place if isinstance(part, str))
    hint = nearest(key, known) or f": it takes {', '.join(known)}"
    return f"no key {key!r} in [{table}]{hint}"
