"""Documents on disk as the dataclasses that they were written from."""

import json
import math
from pathlib import Path
from typing import Any, TypeVar

import cattrs
from cattrs.v import format_exception

from onnxslim_bert.errors import DataError, one_line
from onnxslim_bert.proof.documents import SCHEMA
from onnxslim_bert.zoo.records import Run

RUN, STATE = "run.json", "zoo.sqlite"  # in the folder of a run
LARGEST = 10**18
T = TypeVar("T")

_converter = cattrs.Converter()
_converter.register_structure_hook(float, lambda value, _: math.nan if value is None else float(_figure(value)))
_converter.register_structure_hook(int, lambda value, _: int(_figure(value)))


def structured(kind: type[T], document: Any) -> T:
    """`document`, as `report_json` makes it, as a dataclass; unknown fields are passed over, null is NaN.

    Raises DataError when it is no such document.
    """
    try:
        return _converter.structure(document, kind)
    except cattrs.BaseValidationError as error:
        reasons = "; ".join(cattrs.transform_error(error, format_exception=_said))
        raise DataError(f"no {kind.__name__.lower()} document: {reasons}") from error
    except Exception as error:  # of a document that is not even an object
        raise DataError(f"no {kind.__name__.lower()} document: {error}") from error


def _figure(value: Any) -> Any:
    """A number as it is; raises DataError for one that no run can have measured, in bytes, seconds or points."""
    if isinstance(value, int | float) and abs(value) > LARGEST:
        raise DataError(f"{str(value)[:20]} is no figure of a run")
    return value


def _said(error: BaseException, kind: type | None) -> str:
    return str(error) if isinstance(error, DataError) else format_exception(error, kind)


def load_run(place: Path) -> Run:
    """The run in a folder, or of a run.json. Raises DataError when it is not there or not readable."""
    path, document = read_document(place)
    try:
        return structured(Run, document)
    except DataError as error:
        raise DataError(f"{path} is no run: {one_line(error)}") from error


def read_document(place: Path) -> tuple[Path, dict[str, Any]]:
    """The JSON document at `place`, or of the run in that folder, and where it is. Raises DataError."""
    path = place / RUN if place.is_dir() else place
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: needed the folder of `onnxslim zoo run`, or its {RUN}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}): needed the {RUN} of `onnxslim zoo run`") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise DataError(f"{path} has schema {schema}, needed {SCHEMA}: written by another version, or no run at all")
    return path, document
