"""The JSON report that lies beside a written model."""

import json
from pathlib import Path
from typing import Any

import onnxslim_bert
from onnxslim_bert.documents import plain
from onnxslim_bert.graph.files import write_atomically
from onnxslim_bert.machine import host

SCHEMA = 1


def report_path(output: Path) -> Path:
    """model.int8.onnx -> model.int8.json."""
    return output.with_suffix(".json")


def report_json(result: Any) -> dict[str, Any]:
    """A result, any tree of dataclasses, as one JSON-ready document."""
    document: dict[str, Any] = plain(result)
    return {"schema": SCHEMA, "onnxslim_bert": onnxslim_bert.__version__, "host": plain(host()), **document}


def write_report(path: Path, result: Any) -> None:
    """Write the report to `path`. Raises OutputError, also where a file exists."""
    text = json.dumps(report_json(result), indent=2, allow_nan=False) + "\n"
    write_atomically(path, [text.encode()], overwrite=False)
