"""The published schemas are those of the code, and what commands print keeps to them."""

import configparser
import copy
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from command_line import ROOT, assert_refused, run, workspace

from onnxslim_bert.inspection.verify.schema import schema, schemas
from onnxslim_bert.proof.documents import SCHEMA, report_json
from onnxslim_bert.proof.gates import Budgets, Verdict
from onnxslim_bert.recipes.provenance import Provenance
from onnxslim_bert.recipes.run import Done
from onnxslim_bert.zoo.differences.diff import diff
from onnxslim_bert.zoo.differences.regressions import Limits
from onnxslim_bert.zoo.records import Result, Row, Run, Source

Json = dict[str, Any]
# Fields whose own fields no schema names: they are whatever a pass, a model or a run has.
FREE = ("details", "methods", "files", "parts", "outcomes", "footprints", "placements", "buckets", "counts", "inputs")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """tools/make_schemas.py."""
    pytest.importorskip("pydantic")
    spec = importlib.util.spec_from_file_location("make_schemas", ROOT / "tools" / "make_schemas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx with its rows, and small.onnx made of it."""
    path = tmp_path_factory.mktemp("schemas")
    workspace(path)
    return path


@pytest.fixture(scope="module")
def documents(folder: Path) -> dict[str, Json]:
    """What each command prints, by what was run."""
    source, small = folder / "model.onnx", folder / "small.onnx"
    data = ("--data", folder / "eval.tsv")
    calib = ("--calib", folder / "calib.tsv")
    return {
        "report": printed("quantize", source, *calib, *data, "-o", small, "--max-size", "1MB"),
        "report missed": printed(
            "quantize", source, *calib, *data, "-o", folder / "no.onnx", "--max-size", "1", code=6
        ),
        "report without rows": printed("quantize", source, "--mode", "dynamic", "-o", folder / "d.onnx"),
        "report of slim": printed("slim", source, "-p", "fuse", *data, "-o", folder / "f.onnx"),
        "validation": printed("validate", source, small, *data, "--latency", "--min-agreement", "10"),
        "validation of several": printed("validate", source, small, folder / "f.onnx", *data),
        "bench": printed("bench", source, small, "--rounds", "2", "--seq", "8"),
        "verify": printed("verify", small),
        "verify without the gate": printed("verify", folder / "d.onnx"),
        "zoo-run": report_json(zoo()),
        "zoo-diff": report_json(diff(replace(zoo(), rows=rows()[:1]), zoo(), Limits())),
    }


def zoo() -> Run:
    """A run of both jobs."""
    return Run("zoo.toml", (Source("m", "m.onnx", "ab", 9),), rows(), 1.5)


def rows() -> tuple[Row, ...]:
    """A job that is done, and one that crashed."""
    provenance = Provenance("0", "1", "2", "m.onnx", "ab", "fuse", "", "")
    steps = (Done("fuse", 3, "3 nodes", 0.1),)
    result = Result(
        "ab", {"model.onnx": "cd"}, "model.onnx", 9, 5, provenance, steps, {}, None, "", "cpu", None, (), {}
    )
    done = Row("ab", "m", "fuse", "cpu", "fuse", "done", budgets=Budgets(max_size=4), result=result)
    missed = (Verdict("max-size", "missed", "5, wanted at most 4"),)
    return (
        Row(**{**vars(done), "verdicts": missed, "exit_code": 6}),
        Row("cd", "m", "x", "cpu", "x", "crashed", "signal 9", 1),
    )


def printed(*arguments: object, code: int = 0) -> Json:
    """The document on stdout."""
    outcome = run(*arguments, "--json")
    assert outcome.code == code, outcome
    document: Json = json.loads(outcome.out)
    return document


def strict(node: Any) -> Any:
    """A schema that takes no field which it does not name."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: strict(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and "type" in node:
        closed["additionalProperties"] = False
    return closed


RUNS = ["report", "report missed", "report without rows", "report of slim", "validation"]
RUNS += ["validation of several", "bench", "verify", "verify without the gate", "zoo-run", "zoo-diff"]


@pytest.mark.parametrize("name", RUNS)
def test_what_is_printed_keeps_to_its_schema(documents, name):
    """Every field, and no other."""
    wanted = json.loads(schema(name.split()[0]))
    jsonschema.Draft202012Validator(strict(wanted)).validate(documents[name])
    assert documents[name]["schema"] == SCHEMA


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every field of a document whose fields the schema names."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            if key not in FREE:
                yield from places(value, (*path, key))
    elif isinstance(node, list) and node:
        yield from places(node[0], (*path, 0))


@pytest.mark.parametrize("name", ["report", "verify", "validation of several", "zoo-diff"])
def test_a_field_that_is_missing_is_an_error(documents, name):
    """Each one, wherever it is: a schema that lets anything pass would not see it."""
    checker = jsonschema.Draft202012Validator(json.loads(schema(name.split()[0])))
    for path in list(places(documents[name])):
        if path[-2:-1] and path[-2] in FREE:
            continue
        damaged = copy.deepcopy(documents[name])
        node: Any = damaged
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]
        assert not checker.is_valid(damaged), path


def test_another_number_of_the_schema_is_an_error(documents):
    checker = jsonschema.Draft202012Validator(json.loads(schema("verify")))
    assert not checker.is_valid({**documents["verify"], "schema": SCHEMA + 1})


def test_a_field_that_is_new_is_none(documents):
    """Within one number of the schema fields are added."""
    checker = jsonschema.Draft202012Validator(json.loads(schema("verify")))
    checker.validate({**documents["verify"], "later": 1})


def test_the_schemas_are_those_of_the_code(generator):
    """`python tools/make_schemas.py` would change nothing."""
    assert schemas() == {name: generator.schema_text(name) for name in sorted(generator.DOCUMENTS)}


@pytest.mark.parametrize("name", schemas())
def test_they_are_schemas(name):
    document = json.loads(schema(name))
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(document)


def test_the_command_lists_and_prints_them():
    listed = run("schema")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == sorted(schemas())
    assert run("schema", "verify").out == schema("verify")
    assert_refused(run("schema", "verifi"), "no document is called 'verifi': did you mean 'verify'?")
    assert_refused(run("schema", "xyz"), "there are bench, report,")


def test_they_are_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert "schemas/*.json" in config["options.package_data"]["onnxslim_bert"].replace(",", " ").split()
