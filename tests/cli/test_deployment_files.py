"""Dockerfile and action.yml: valid, and every command in them is one of this program and does what it says."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT, environment, run_process, workspace

yaml = pytest.importorskip("ruamel.yaml")
pytest.importorskip("check_jsonschema")

ACTION, DOCKERFILE = ROOT / "action.yml", ROOT / "Dockerfile"
INSTRUCTIONS = {"FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}


def action() -> dict[str, Any]:
    document: dict[str, Any] = yaml.YAML(typ="safe", pure=True).load(ACTION)
    return document


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, with their arguments."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def test_the_action_is_valid_by_github_s_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-actions", str(ACTION)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_action_uses_every_input_and_sets_every_output() -> None:
    """An input that no step reads, or an output that none sets, is a promise that nothing keeps."""
    document = action()
    text = "\n".join(str(step) for step in document["runs"]["steps"])
    for name in document["inputs"]:
        assert f"inputs.{name} " in text
    for name, output in document["outputs"].items():
        assert output["value"] == f"${{{{ steps.quantize.outputs.{name} }}}}"


def quantize(folder: Path, *more: str) -> tuple[int, dict[str, str], str]:
    """Run the action's step on the model in `folder`: its exit code, outputs and summary."""
    (step,) = [each for each in action()["runs"]["steps"] if each.get("id") == "quantize"]
    program = folder / "bin" / "onnxslim"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m onnxslim_bert "$@"\n')
    program.chmod(0o755)
    files = {name: str(folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    given = {"MODEL": "model.onnx", "CALIB": "calib.tsv", "DATA": "eval.tsv", "OUTPUT": "small.onnx"}
    assert set(step["env"]) == {*given, "ARGUMENTS"}
    path = f"{program.parent}:{environment()['PATH']}"
    variables = environment(**given, ARGUMENTS=" ".join(more), RUNNER_TEMP=str(folder), PATH=path, **files)
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    outputs = dict(line.split("=", 1) for line in Path(files["GITHUB_OUTPUT"]).read_text().splitlines())
    return done.returncode, outputs, Path(files["GITHUB_STEP_SUMMARY"]).read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_the_action_writes_a_model_and_fails_by_its_budgets(tmp_path: Path) -> None:
    """The report is the summary of the job, the file its output; a missed size is exit code 6 and no output.

    Arguments may stand on several lines, and in quotes.
    """
    workspace(tmp_path)
    code, outputs, summary = quantize(tmp_path, "--method", "minmax", "--max-size", "1kB")
    assert (code, outputs) == (6, {})
    assert "max-size missed" in summary
    (tmp_path / "our tokenizer").mkdir()
    shutil.copy(tmp_path / "tokenizer.json", tmp_path / "our tokenizer")
    code, outputs, summary = quantize(tmp_path, "--method\nminmax", "--tokenizer 'our tokenizer'")
    assert (code, outputs) == (0, {"model": "small.onnx", "report": "small.json"})
    assert (tmp_path / "small.onnx").is_file()
    assert "accuracy: " in summary


def test_the_image_is_built_of_what_its_context_holds() -> None:
    """Known instructions; the copied folder is the checkout, with all that the installation reads."""
    found = instructions()
    assert {name for name, _ in found} <= INSTRUCTIONS
    assert ("COPY", ". /src") in found
    ignored = (ROOT / ".dockerignore").read_text().split()
    needed = ("setup.cfg", "pyproject.toml", "README.md", "onnxslim_bert", "passes", "calibration", "models")
    assert not set(needed) & set(ignored)
    runs = [shlex.split(arguments) for name, arguments in found if name == "RUN"]
    assert runs[0][-4:] == ["/opt/onnxslim/bin/pip", "install", "--no-cache-dir", "/src"]
    (base,) = {arguments.split()[0] for name, arguments in found if name == "FROM"}
    assert re.fullmatch(r"python:3\.1[1-9]-slim", base)


def test_the_image_s_commands_are_those_of_the_program() -> None:
    """ENTRYPOINT and CMD together run; so does the example in its head."""
    found = dict(instructions())
    entry, given = (yaml.YAML(typ="safe", pure=True).load(found[name]) for name in ("ENTRYPOINT", "CMD"))
    assert entry == ["onnxslim"]
    assert "Make BERT-family ONNX models small" in run_process(*given).out
    example = DOCKERFILE.read_text().split("onnxslim quantize", 1)[1].splitlines()[0]
    assert example.split() == ["model.onnx", "--calib", "reviews"]
