"""The published schemas of the JSON documents that commands print (JSON Schema 2020-12).

A document says the number of its schema, `report.SCHEMA`. Within one number fields are only added; a field that goes,
is renamed or changes its meaning makes a new number.
"""

import difflib
import json
from importlib import resources

from onnxslim_bert.errors import DataError

FORMER: dict[str, str] = dict.fromkeys(
    ("quantize-report", "slim-report", "search-report"), "report"
)  # what names once meant


def schemas() -> dict[str, str]:
    """Every schema as text, by the name of its document."""
    folder = resources.files("onnxslim_bert") / "schemas"
    files = {file.name: file for file in folder.iterdir() if file.name.endswith(".json")}
    return {name.removesuffix(".json"): files[name].read_text(encoding="utf-8") for name in sorted(files)}


def schema(name: str) -> str:
    """One of them. Raises DataError for any other name."""
    known = schemas()
    name = FORMER.get(name, name)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        meant = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
        raise DataError(f"no document is called '{name}': {meant}")
    return known[name]


def titles() -> dict[str, str]:
    """What each document is, by name."""
    return {name: str(json.loads(text)["description"]) for name, text in schemas().items()}
