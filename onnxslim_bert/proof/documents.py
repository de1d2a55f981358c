"""JSON documents from elsewhere, read into dataclasses: every field there, nothing else there, each of its type."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import onnxslim_bert
from onnxslim_bert.errors import DataError
from onnxslim_bert.graph.files import write_atomically
from onnxslim_bert.machine import host

SCHEMA = 1


class Document(Protocol):
    """A frozen dataclass with a field `schema`, whose version it reads is SCHEMA."""

    __dataclass_fields__: typing.ClassVar[dict[str, Any]]
    SCHEMA: typing.ClassVar[int]


D = TypeVar("D", bound=Document)


def read_document(kind: type[D], text: bytes, source: object) -> D:
    """The document in `text`, of which messages speak as `source`.

    Raises DataError for what is no JSON object, has another schema version, or lacks, adds or mistypes a field.
    """
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source} is cut off or no JSON ({error}): needed a whole document") from error
    if not isinstance(found, dict) or "schema" not in found:
        raise DataError(f'{source} has no schema version: needed an object with "schema": {kind.SCHEMA}')
    if found["schema"] != kind.SCHEMA:
        raise DataError(
            f"{source} has schema version {json.dumps(found['schema'])[:40]}: this program reads {kind.SCHEMA}"
        )
    document: D = _checked(found, kind, str(source))
    return document


def write_document(document: Document) -> bytes:
    """The document as indented JSON."""
    return (json.dumps(dataclasses.asdict(document), indent=2, allow_nan=False) + "\n").encode()


def _checked(value: Any, kind: Any, place: str) -> Any:
    """`value` as an instance of `kind`: a dataclass, dict[str, ...], tuple[..., ...], ... | None, or a scalar."""
    arguments = typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _fields(_of(dict, value, place), kind, place)
    if isinstance(kind, types.UnionType):
        return None if value is None else _checked(value, arguments[0], place)
    if typing.get_origin(kind) is dict:
        items = _of(dict, value, place).items()
        return {_of(str, key, place): _checked(item, arguments[1], f"{place}: {key}") for key, item in items}
    if typing.get_origin(kind) is tuple:
        listed = enumerate(_of(list, value, place))
        return tuple(_checked(item, arguments[0], f"{place}: item {index}") for index, item in listed)
    if kind is float and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{place} is {value}: needed a finite number")
    return _of(kind, value, place)


def _fields(found: dict[str, Any], kind: Any, place: str) -> Any:
    known = {field.name: field for field in dataclasses.fields(kind)}
    extra = sorted(found.keys() - known.keys())
    if extra:
        raise DataError(f"{place}: {extra[0][:40]!r} is no field of a {kind.__name__.lower()}")
    missing = [name for name, field in known.items() if name not in found and _needed(field)]
    if missing:
        raise DataError(f"{place} is incomplete: needed {', '.join(missing)}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _checked(value, hints[name], f"{place}: {name}") for name, value in found.items()})


def _needed(field: "dataclasses.Field[Any]") -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _of(kind: type[Any], value: Any, place: str) -> Any:
    if type(value) is not kind:  # True is an int for isinstance
        raise DataError(f"{place} is {json.dumps(value)[:40]}: needed {NAMES[kind]}")
    if kind is str and not value.isprintable():  # it may reach a terminal
        raise DataError(f"{place} holds control characters: needed plain text, not {json.dumps(value)[:40]}")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"found {constant}")


NAMES: dict[type[Any], str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}


def report_path(output: Path) -> Path:
    """model.int8.onnx -> model.int8.json."""
    return output.with_suffix(".json")


def report_json(result: Any) -> dict[str, Any]:
    """A result, any tree of dataclasses, as one JSON-ready document."""
    document: dict[str, Any] = plain(result)
    return {"schema": SCHEMA, "onnxslim_bert": onnxslim_bert.__version__, "host": plain(host()), **document}


def write_report(path: Path, result: Any, *, overwrite: bool = False) -> None:
    """Write the report to `path`. Raises OutputError."""
    text = json.dumps(report_json(result), indent=2, allow_nan=False) + "\n"
    write_atomically(path, [text.encode()], overwrite=overwrite)


def plain(value: Any) -> Any:
    """A tree of dataclasses, mappings and sequences, JSON-ready; numbers that are not finite become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
