"""Read the document that a report is made from: a run, the version of the program that wrote it, and the host."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxslim_bert.documents import structured
from onnxslim_bert.errors import DataError, disarmed, one_line
from onnxslim_bert.zoo.documents import RUN, read_document
from onnxslim_bert.zoo.page.single import is_single, single_run
from onnxslim_bert.zoo.records import Run


@dataclass(frozen=True)
class RunDocument:
    """The document of a run as the page shows it: the run, and what made it.

    version: of the program that wrote it. host: the machine that ran it, as `report_json` describes it.
    """

    run: Run
    version: str = ""
    host: Mapping[str, Any] = field(default_factory=dict)


def load_document(place: Path) -> RunDocument:
    """The run in a folder of `onnxslim zoo run`, its run.json, or the report that `onnxslim quantize` wrote.

    Raises DataError for anything else.
    """
    path, document = read_document(place)
    found = _disarmed(document)
    if not ({"sources", "rows"} <= found.keys() or is_single(found)):
        raise DataError(
            f"{path} is no run: needed the {RUN} of `onnxslim zoo run` or the report of `onnxslim quantize`"
        )
    try:
        run = single_run(found) if is_single(found) else structured(Run, found)
    except DataError as error:
        raise DataError(f"{path} is no run: {one_line(error)}") from error
    strangers = {row.model for row in run.rows} - {source.name for source in run.sources}
    if strangers:
        raise DataError(f"{path} is no whole run: it has jobs of '{min(strangers)}' and no model of that name")
    if not run.rows:
        raise DataError(f"{path} has no jobs: there is nothing to report")
    host = found.get("host")
    return RunDocument(run, str(found.get("onnxslim_bert", "")), host if isinstance(host, dict) else {})


def _disarmed(value: Any) -> Any:
    """A JSON value whose texts a page may have (`errors.disarmed`)."""
    if isinstance(value, dict):
        return {disarmed(key): _disarmed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_disarmed(item) for item in value]
    return disarmed(value) if isinstance(value, str) else value
