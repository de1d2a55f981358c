"""Dataclasses as JSON documents, written and read back by cattrs."""

import codecs
import dataclasses
import json
import math
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import cattrs
import numpy as np
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn

from onnxslim_bert.errors import DataError, one_line

MOST_FAULTS = 3  # of one document that its error names
MOST_BYTES = 1 << 28  # of a document; the largest tokenizers have a tenth of that
LARGEST = 10**18  # in bytes, seconds or points: more than any run can have measured
LONGEST_LINE = 1 << 24  # letters of a text file's line
NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}
T = TypeVar("T")
Hook = Callable[[Any, Any], Any]


class Document(Protocol):
    """A frozen dataclass with a field `schema`, whose version it reads is SCHEMA."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    SCHEMA: ClassVar[int]


D = TypeVar("D", bound=Document)


def plain(value: Any) -> Any:
    """A tree of dataclasses, mappings, sequences and arrays, JSON-ready; numbers that are not finite become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def check_place(file: Path, needed: str) -> None:
    """Raise DataError unless there is a file that can be read as a document: a regular one of at most MOST_BYTES.

    A pipe or a device, which reading might wait for without end, is none. needed: what it should be, for the message.
    """
    if not file.is_file():
        raise DataError(f"{file} {'is no regular file' if file.exists() else 'does not exist'}: needed {needed}")
    nbytes = file.stat().st_size
    if nbytes > MOST_BYTES:
        raise DataError(f"{file} has {nbytes / 1e6:,.0f} MB: needed {needed} of at most {MOST_BYTES / 1e6:.0f} MB")


def read_whole(file: Path, needed: str = "JSON") -> bytes:
    """The bytes of a document. Raises DataError as `check_place` does, and for a file that cannot be read."""
    try:
        check_place(file, needed)
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}): needed {needed}") from error


def read_lines(file: Path, *, keep_ends: bool = False) -> Iterator[str]:
    """The lines of a UTF-8 text file, or of UTF-16 where a byte order mark says so, one by one and without the mark.

    keep_ends: lines with their ends, and a carriage return alone ends one, too, as `csv` wants them.

    Raises DataError for bytes that are no such text, for NUL, which no text holds, and for lines longer than
    LONGEST_LINE; OSError where the file cannot be read.
    """
    with file.open("rb") as opened:
        wide = opened.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    with file.open(encoding="utf-16" if wide else "utf-8-sig", newline="" if keep_ends else "\n") as opened:
        number, needed = 0, "UTF-16" if wide else "UTF-8"
        try:
            while line := opened.readline(LONGEST_LINE):
                number += 1
                if "\0" in line:
                    raise DataError(f"{file}, line {number}: a NUL byte: needed {needed} text")
                if len(line) == LONGEST_LINE:
                    raise DataError(f"{file}, line {number}: longer than {LONGEST_LINE:,} letters: needed less")
                yield line if keep_ends else line.rstrip("\r\n")
        except UnicodeDecodeError as error:
            found = error.object[error.start]
            raise DataError(f"{file}: byte 0x{found:02x} is not {needed}: needed {needed} text") from error


def read_json(file: Path, needed: str = "JSON") -> Any:
    """What the JSON in `file` says. Raises DataError as `read_whole` does, and for text that is no JSON in UTF-8."""
    data = read_whole(file, needed)
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is no JSON ({one_line(error)}): needed {needed}") from error


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`. Raises DataError as `read_json` does, and for JSON that is no object."""
    found = read_json(file, needed := "a JSON object")
    if not isinstance(found, dict):
        raise DataError(f"{file}: {type(found).__name__}: needed {needed}")
    return found


def write_document(document: Document) -> bytes:
    """The document as indented JSON."""
    return (json.dumps(dataclasses.asdict(document), indent=2, allow_nan=False) + "\n").encode()


def read_document(kind: type[D], text: bytes, source: object) -> D:
    """A document from elsewhere: every field there, nothing else there, each of its type.

    Raises DataError, which speaks of the document as `source`, for what is no JSON object, has another schema version,
    or lacks, adds or mistypes a field. Example: "results.json: latencies_ms: item 6 is true: needed a number".
    """
    try:
        found = json.loads(text.decode("utf-8-sig"), parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source} is cut off or no JSON ({error}): needed a whole document") from error
    if not isinstance(found, dict) or "schema" not in found:
        raise DataError(f'{source} has no schema version: needed an object with "schema": {kind.SCHEMA}')
    if found["schema"] != kind.SCHEMA:
        raise DataError(f"{source} has schema version {_quoted(found['schema'])}: this program reads {kind.SCHEMA}")
    return _structured(_strict, kind, found, str(source))


def structured(kind: type[T], document: Any) -> T:
    """What `plain` made of a `kind`, as one again: unknown fields are passed over, null is NaN, lists are arrays.

    Raises DataError when it is no such document.
    """
    return _structured(_lenient, kind, document, f"no {kind.__name__.lower()} document")


def _structured(converter: cattrs.Converter, kind: type[T], document: Any, place: str) -> T:
    try:
        return converter.structure(document, kind)
    except Exception as error:  # whatever the wrong kind of value makes of a constructor
        raise DataError("; ".join(islice(_faults(error, place), MOST_FAULTS))) from error


def _faults(error: BaseException, place: str) -> Iterator[str]:
    """Each fault that cattrs found, after the place where it is."""
    if isinstance(error, cattrs.IterableValidationError):
        for inner, item in error.group_exceptions()[0]:
            key = f"item {item.index}" if isinstance(item.index, int) else _quoted(item.index)[1:-1]
            yield from _faults(inner, f"{place}: {key}")
    elif isinstance(error, cattrs.ClassValidationError):
        inside, whole = error.group_exceptions()
        for inner in whole:
            yield from _faults(inner, place)
        if missing := [field.name for inner, field in inside if isinstance(inner, KeyError)]:
            yield f"{place} is incomplete: needed {', '.join(missing)}"
        for inner, field in inside:
            if not isinstance(inner, KeyError):
                yield from _faults(inner, f"{place}: {field.name}")
    elif isinstance(error, cattrs.ForbiddenExtraKeysError):
        yield f"{place}: {min(error.extra_fields)[:40]!r} is no field of a {error.cl.__name__.lower()}"
    else:
        yield str(error) if isinstance(error, DataError) else f"{place} {error}"


def _of(kind: type[T], value: Any) -> T:
    """`value`, if it is a `kind` and nothing that could change a terminal. Raises ValueError."""
    if type(value) is not kind:  # True is an int for isinstance
        raise ValueError(f"is {_quoted(value)}: needed {NAMES[kind]}")
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(f"holds control characters: needed plain text, not {_quoted(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"is {value}: needed a finite number")
    return value


def _quoted(value: Any) -> str:
    return json.dumps(value)[:40]


def _refuse(constant: str) -> None:
    raise ValueError(f"found {constant}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are there once each. Raises ValueError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"{_quoted(twice)} is there twice in one object")
    return found


def _figure(value: Any) -> Any:
    if isinstance(value, int | float) and abs(value) > LARGEST:
        raise ValueError(f"{str(value)[:20]} is no figure of a run")
    return value


def _container(shape: type[Any], factory: Callable[[Any, cattrs.Converter], Hook]) -> Callable[..., Hook]:
    """`factory`, whose hooks take nothing but a `shape` of JSON."""

    def checked(kind: Any, converter: cattrs.Converter) -> Hook:
        read = factory(kind, converter)
        return lambda value, _: read(_of(shape, value), kind)

    return checked


def _tuple(kind: Any, converter: cattrs.Converter) -> Hook:
    read = list_structure_factory(kind, converter)
    return lambda value, _: tuple(read(value, kind))


def _is(origin: type[Any]) -> Callable[[Any], bool]:
    return lambda kind: typing.get_origin(kind) is origin


def _strict_float(value: Any, _: Any) -> float:
    return float(value) if type(value) is int and abs(value) < 1 << 53 else _of(float, value)


_lenient = cattrs.Converter()
_lenient.register_structure_hook(float, lambda value, _: math.nan if value is None else float(_figure(value)))
_lenient.register_structure_hook(int, lambda value, _: int(_figure(value)))
_lenient.register_structure_hook_func(_is(np.ndarray), lambda value, _: np.array(value))

_strict = cattrs.Converter(forbid_extra_keys=True)
for _scalar in (str, int, bool):
    _strict.register_structure_hook(_scalar, lambda value, kind: _of(kind, value))
_strict.register_structure_hook(float, _strict_float)
_strict.register_structure_hook_factory(dataclasses.is_dataclass, _container(dict, make_dict_structure_fn))
_strict.register_structure_hook_factory(_is(dict), _container(dict, mapping_structure_factory))
_strict.register_structure_hook_factory(_is(tuple), _container(list, _tuple))
