"""The report that lies beside a written model."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxslim_bert
from onnxslim_bert.output import write_atomically
from onnxslim_bert.proof.host import host

SCHEMA = 1


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
