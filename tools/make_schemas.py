"""Write the JSON Schemas of the documents that commands print, from the dataclasses that they are made of.

    python tools/make_schemas.py

Needs pydantic. JSON Schema 2020-12 (https://json-schema.org/draft/2020-12); descriptions are the docstrings.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from onnxslim_bert.inspection.verify.verification import Verification
from onnxslim_bert.job.report import Report
from onnxslim_bert.machine import Host
from onnxslim_bert.proof.bench import Bench
from onnxslim_bert.proof.documents import SCHEMA
from onnxslim_bert.proof.validation import Validation
from onnxslim_bert.zoo.differences.diff import Diff
from onnxslim_bert.zoo.records import Run

FOLDER = Path(__file__).parents[1] / "onnxslim_bert" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Document:
    """What a command prints. host: whether the machine is named in it. several: under which name there may be more."""

    kind: type
    title: str
    host: bool = True
    several: str = ""


DOCUMENTS = {
    "report": Document(Report, "What `onnxslim quantize` or `onnxslim slim` did, and what it is worth."),
    "validation": Document(Validation, "What `onnxslim validate` found.", host=False, several="validations"),
    "bench": Document(Bench, "What `onnxslim bench` measured.", host=False),
    "verify": Document(Verification, "What `onnxslim verify` found."),
    "zoo-run": Document(Run, "A run of `onnxslim zoo run`: its run.json."),
    "zoo-diff": Document(Diff, "What `onnxslim zoo diff` found."),
}


class Written(GenerateJsonSchema):
    """As documents are written: every field is there, and a number that is not finite is null."""

    def field_is_required(self, *_: Any, **__: Any) -> bool:
        return True

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"type": ["number", "null"]}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in DOCUMENTS:
        (FOLDER / f"{name}.json").write_text(schema_text(name), encoding="utf-8")
        print(FOLDER / f"{name}.json")


def schema_text(name: str) -> str:
    """The schema of that document, as it lies in the package."""
    document = DOCUMENTS[name]
    found = _plain(TypeAdapter(document.kind).json_schema(schema_generator=Written, mode="serialization"))
    parts: dict[str, Any] = found.pop("$defs")
    header: dict[str, Any] = {"schema": {"const": SCHEMA}, "onnxslim_bert": {"type": "string"}}
    if document.host:
        parts["Host"] = _plain(TypeAdapter(Host).json_schema(schema_generator=Written, mode="serialization"))
        header["host"] = {"$ref": "#/$defs/Host"}
    one = _with(header, found)
    if document.several:
        parts[document.kind.__name__] = found
        more = {"type": "array", "items": {"$ref": f"#/$defs/{document.kind.__name__}"}}
        shape = {"anyOf": [one, _with(header, {"properties": {document.several: more}})]}
    else:
        shape = one
    top = {"$schema": DIALECT, "title": name, "description": document.title}
    whole = {**shape, **top, "$defs": dict(sorted(parts.items()))}
    return json.dumps({**top, **whole}, indent=2, ensure_ascii=False) + "\n"


def _with(header: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """An object that begins with the fields of `header`."""
    properties = {**header, **schema["properties"]}
    return {**schema, "type": "object", "properties": properties, "required": list(properties)}


def _plain(schema: Any, named: bool = False) -> Any:
    """Without titles of fields, which repeat their names, and with docstrings in one line. named: keys are names."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = schema if named else {k: v for k, v in schema.items() if k != "title" and (k, v) != ("format", "path")}
    plain = {key: _plain(value, key in ("properties", "$defs") and not named) for key, value in kept.items()}
    if not named and isinstance(plain.get("description"), str):
        plain["description"] = re.sub(r"\s+", " ", plain["description"])
    return plain


if __name__ == "__main__":
    main()
