"""The document of a run, as it lies on disk."""

from pathlib import Path
from typing import Any

from onnxslim_bert.documents import read_json, structured
from onnxslim_bert.errors import DataError, one_line
from onnxslim_bert.proof.documents import SCHEMA
from onnxslim_bert.zoo.records import Run

RUN, STATE = "run.json", "zoo.sqlite"  # in the folder of a run


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
    document = read_json(path, f"the folder of `onnxslim zoo run`, or its {RUN}")
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise DataError(f"{path} has schema {schema}, needed {SCHEMA}: written by another version, or no run at all")
    return path, document
