"""Class names that a file declares for a column of numbers, as data sets of the Hugging Face hub do."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


class Coded(list[Any]):
    """A column of class numbers, or of lists of them. names: of class 0, 1, ..., as its file declares them."""

    def __init__(self, numbers: Sequence[Any], names: Sequence[str]) -> None:
        super().__init__(numbers)
        self.names = tuple(names)


def coded(columns: Mapping[str, Sequence[Any]], features: Any) -> dict[str, Sequence[Any]]:
    """`columns`, with a `Coded` for each of which `features` names the classes; other declarations are left aside.

    features: by column, {"_type": "ClassLabel", "names": ["negative", "positive"]} (`datasets.Features.to_dict`), the
    same as the "feature" of a list, or a list of {"name": column, "type": what it is}, as the hub's server sends it.
    """
    if isinstance(features, list):
        features = {str(each.get("name")): each.get("type") for each in features if isinstance(each, dict)}
    declared = features if isinstance(features, dict) else {}
    found = {name: (values, _names(declared.get(name))) for name, values in columns.items()}
    return {name: Coded(values, names) if _fits(values, names) else values for name, (values, names) in found.items()}


def features_of(metadata: Mapping[bytes, bytes] | None) -> Any:
    """What the metadata of a parquet file's schema say of its columns; None where they say nothing."""
    try:
        return json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _names(kind: Any) -> list[str]:
    if isinstance(kind, list) and len(kind) == 1:
        kind = kind[0]
    if isinstance(kind, dict) and isinstance(kind.get("feature"), dict):
        kind = kind["feature"]
    names = kind.get("names") if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _fits(values: Sequence[Any], names: Sequence[str]) -> bool:
    numbers = [number for value in values for number in (value if isinstance(value, list) else [value])]
    fits = all(type(number) is int and -1 <= number < len(names) for number in numbers)
    return fits and 0 < len(names) == len(set(names))


def names_in(values: Sequence[Any]) -> tuple[str, ...]:
    """The names that are declared for the classes of a column; () where none are."""
    return values.names if isinstance(values, Coded) else ()
