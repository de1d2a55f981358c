"""Operators by their schemas: how many inputs and outputs a node has, of which types its attributes are, and that
element types which attributes name exist.
"""

import functools
from collections.abc import Mapping
from typing import Any

import onnx

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.tensors import TYPES
from onnxslim_bert.graph.words import called, shown

ONNX = "ai.onnx"  # the domain that is written "" otherwise
KINDS = {number: name for name, number in onnx.AttributeProto.AttributeType.items() if number}
FIELDS = {  # where values of the kinds that are read lie
    "FLOAT": "f",
    "INT": "i",
    "STRING": "s",
    "TENSOR": "t",
    "GRAPH": "g",
    "FLOATS": "floats",
    "INTS": "ints",
    "STRINGS": "strings",
}
ELEMENT_TYPES = ("to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision")
UNSET = ("output_dtype", "softmax_precision")  # where 0 leaves the type to the operator


def operator_sets(path: object, imported: Mapping[str, int]) -> dict[str, int]:
    """Versions by domain, ONNX's own as "". Raises ModelError for a version that is not known here."""
    versions = {"" if domain == ONNX else domain: version for domain, version in imported.items()}
    newest = onnx.defs.onnx_opset_version()
    if "" in versions and not 1 <= versions[""] <= newest:
        raise ModelError(f"{path}: opset {versions['']} is not known here; opsets 1 to {newest} are")
    return versions


def check_operator(path: object, node: onnx.NodeProto, versions: Mapping[str, int]) -> None:
    """Raise ModelError when `node` has too few or too many inputs or outputs, or an attribute of another type."""
    domain = "" if node.domain == ONNX else node.domain
    if domain == "" and "" not in versions:
        raise ModelError(f"{path}: {called(node)} is of ONNX's operator set, whose version the file does not give")
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) < len(names):
        raise ModelError(f"{path}: {called(node)} has an attribute twice")
    for attribute in node.attribute:
        _check_value(path, node, attribute)
    if node.op_type == "Constant" and len(names) != 1:
        raise ModelError(f"{path}: {called(node)} has {len(names)} attributes; needed its value")
    schema = _schema(node.op_type, domain, versions.get(domain, 1))
    if schema is None and node.op_type in _of_onnx():
        place = f"domain {shown(domain)}" if domain else f"opset {versions['']}"
        raise ModelError(f"{path}: {called(node)} is no known operator of {place}, and is not taken for another")
    if schema is not None:
        _check_arity(path, node, schema)
        _check_kinds(path, node, schema)


def is_operator(name: str, domain: str, versions: Mapping[str, int]) -> bool:
    """Whether ONNX or ONNX Runtime has an operator `name` in the set `domain`, ONNX's own being ""."""
    return _schema(name, domain, versions.get(domain, 1)) is not None


def _check_value(path: object, node: onnx.NodeProto, attribute: onnx.AttributeProto) -> None:
    """An attribute says its type, and holds a value of no other."""
    place = f"{path}: attribute {shown(attribute.name)} of {called(node)}"
    if attribute.type not in KINDS:
        raise ModelError(f"{place} has type {attribute.type}, which ONNX does not know")
    if attribute.ref_attr_name:
        raise ModelError(f"{place} refers to a function's attribute, outside of a function")
    kind = KINDS[attribute.type]
    if kind not in FIELDS:
        raise ModelError(f"{place} is {kind}, which is not read here")
    held = {field.name for field, _ in attribute.ListFields()} - {"name", "type", "doc_string"}
    if held - {FIELDS[kind]} or (kind in ("TENSOR", "GRAPH") and not held):
        raise ModelError(f"{place} is {kind} and holds {', '.join(sorted(held)) or 'nothing'}")
    if kind == "INT" and attribute.name in ELEMENT_TYPES:
        number = attribute.i
        if number not in TYPES and not (number == 0 and attribute.name in UNSET):
            raise ModelError(f"{place} names element type {number}, which ONNX does not know")
    if node.op_type == "EPContext":  # holds what a provider compiled
        return
    try:
        for text in (attribute.s, *attribute.strings):
            text.decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"{place} is not UTF-8 text") from error


def _check_arity(path: object, node: onnx.NodeProto, schema: Any) -> None:
    for what, names, least, most in (
        ("inputs", node.input, schema.min_input, schema.max_input),
        ("outputs", node.output, schema.min_output, schema.max_output),
    ):
        if not least <= len(names) <= most:
            needed = str(least) if least == most else f"{least} to {most}" if most < 1000 else f"{least} or more"
            raise ModelError(f"{path}: {called(node)} has {len(names)} {what}; needed {needed}")
    for name, formal in zip(node.input, schema.inputs, strict=False):
        if not name and formal.option.name == "Single":
            raise ModelError(f"{path}: {called(node)} has no input {shown(formal.name)}, which it needs")


def _check_kinds(path: object, node: onnx.NodeProto, schema: Any) -> None:
    given = {attribute.name: attribute.type for attribute in node.attribute}
    for name, formal in schema.attributes.items():
        if name in given and given[name] != int(formal.type):
            raise ModelError(
                f"{path}: attribute {shown(name)} of {called(node)} is {KINDS[given[name]]}; "
                f"needed {KINDS[int(formal.type)]}"
            )
        if formal.required and name not in given:
            raise ModelError(f"{path}: {called(node)} has no attribute {shown(name)}, which it needs")


@functools.cache
def _schema(operator: str, domain: str, version: int) -> Any | None:
    """The schema of an operator as of `version` of its set; None for one that nobody here knows."""
    try:
        return onnx.defs.get_schema(operator, version, domain)
    except onnx.defs.SchemaError:
        known = [schema for schema in _of_runtime().get((domain, operator), ()) if schema.since_version <= version]
        return max(known, key=lambda schema: schema.since_version, default=None)


@functools.cache
def _of_onnx() -> frozenset[str]:
    """The names of ONNX's own operators, of any version."""
    return frozenset(schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain)


@functools.cache
def _of_runtime() -> dict[tuple[str, str], list[Any]]:
    """ONNX Runtime's schemas: its own domain's, and LayerNormalization before ONNX had it."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    schemas: dict[tuple[str, str], list[Any]] = {}
    for schema in get_all_operator_schema():
        schemas.setdefault((schema.domain, schema.name), []).append(schema)
    return schemas
