"""The examples for build servers: valid by the servers' own schemas, and their scripts do what they say.

Every `run:` and `script:` is executed by bash as the service would, in a workspace with the reference model. Only the
line that installs the package is left out, and steps that are somebody else's programs (`uses:`) are not run: what they
would move between jobs lies in the one workspace.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import ROOT, environment

yaml = pytest.importorskip("ruamel.yaml")
pytest.importorskip("check_jsonschema")

PIPELINES = ROOT / "docs" / "pipelines"
GITHUB, GITLAB = PIPELINES / "github-actions.yml", PIPELINES / "gitlab-ci.yml"
INSTALL = 'pip install "onnxslim-bert[report]"'
BASH = shutil.which("bash")
runs_bash = pytest.mark.skipif(BASH is None or os.name != "posix", reason="needs bash")


def read(path: Path) -> dict[str, Any]:
    """A pipeline as its service reads it (YAML 1.2: `on` is a word)."""
    document: dict[str, Any] = yaml.YAML(typ="safe", pure=True).load(path)
    return document


@dataclass
class Runner:
    """A job's machine: a workspace with the model, and `onnxslim` on the path.

    log: what each script printed. summary: what the scripts wrote to their summaries.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    summary: str = ""

    @classmethod
    def new(cls, folder: Path) -> "Runner":
        """With a checkout of a repository that keeps the reference model."""
        checkout, programs = folder / "checkout", folder / "bin"
        own = shutil.ignore_patterns("*.int8.*")  # what the README's first command leaves there
        shutil.copytree(ROOT / "models" / "sst2-tiny", checkout / "model", ignore=own)
        shutil.copy(PIPELINES / "zoo.toml", checkout / "zoo.toml")
        programs.mkdir()
        script = programs / "onnxslim"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m onnxslim_bert "$@"\n')
        script.chmod(0o755)
        path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "CI": "true", "ONNXSLIM_BERT_QUIET": "1"}
        return cls(checkout, environment(**path))

    def bash(self, script: str, variables: Mapping[str, str]) -> int:
        """Exit code of a script, run as both services do: it ends at the first command that fails, in a pipe too."""
        assert BASH is not None
        lines = [line for line in script.splitlines() if line.strip() != INSTALL]
        done = subprocess.run(
            [BASH, "--noprofile", "--norc", "-eo", "pipefail", "-c", "\n".join(lines)],
            cwd=self.folder,
            env={**self.variables, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        self.log.append(f"$ {script}\n{done.stdout}{done.stderr}")
        return done.returncode

    def github(self, job: str) -> int:
        """The steps of a job, as GitHub runs them: after a failure only those that say `if: always()`."""
        workflow = read(GITHUB)
        assert workflow["defaults"]["run"]["shell"] == "bash"  # with -eo pipefail
        failed = 0
        for number, step in enumerate(workflow["jobs"][job]["steps"]):
            if "run" not in step or (failed and step.get("if") != "always()"):
                continue
            summary = self.folder.parent / f"summary-{number}"  # every step has one of its own, empty
            summary.touch()
            code = self.bash(step["run"], {**workflow["env"], "GITHUB_STEP_SUMMARY": str(summary)})
            self.summary += summary.read_text()
            failed = failed or code
        return failed

    def gitlab(self, job: str) -> int:
        """The scripts of a job, as GitLab runs them: one shell for the job, and another one after it."""
        pipeline = read(GITLAB)
        lines = [*pipeline["default"]["before_script"], *pipeline[job]["script"]]
        code = self.bash("\n".join(lines), pipeline["variables"])
        if "after_script" in pipeline[job]:
            self.bash("\n".join(pipeline[job]["after_script"]), pipeline["variables"])
        return code

    def spoil(self) -> None:
        """A release in which another model took the place of the one that was measured."""
        model = self.folder / "release" / "model.int8.onnx"
        data = bytearray(model.read_bytes())
        data[len(data) // 2] ^= 1
        model.write_bytes(data)

    def worsen(self) -> None:
        """A new model that answers about as before, and whose int8 form does not.

        Every second neuron of each feed-forward layer repeats the one before it, and what the two write is large and
        cancels: a sum that float32 can do and int8 cannot.
        """
        path = self.folder / "model" / "model.onnx"
        model, rng = onnx.load(path), np.random.default_rng(0)
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor).copy()
            if tensor.name.endswith("intermediate.dense.bias"):
                values[1::2] = values[::2]
            elif values.shape == (192, 384):  # up
                values[:, 1::2] = values[:, ::2]
            elif values.shape == (384, 192):  # down
                large = 1000 * rng.normal(size=(192, 192))
                values[::2] += large
                values[1::2] -= large
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(model, path)


def uploads(job: str, *, failed: bool = False) -> list[str]:
    """What the steps of a GitHub job upload; when it `failed`, those that run all the same."""
    steps = [step for step in read(GITHUB)["jobs"][job]["steps"] if not failed or step.get("if") == "always()"]
    kept = [step["with"]["path"] for step in steps if step.get("uses", "").startswith("actions/upload-artifact@")]
    return [path for paths in kept for path in paths.split()]


def artifacts(job: str, *, failed: bool = False) -> list[str]:
    """What a GitLab job keeps; when it `failed`, reports at least."""
    kept = read(GITLAB)[job]["artifacts"]
    reports = kept["reports"]["junit"]
    paths = kept["paths"] if kept["when"] == "always" or not failed else []
    return [*paths, *([reports] if isinstance(reports, str) else reports)]


def assert_there(folder: Path, paths: Sequence[str]) -> None:
    """All of them, and not empty."""
    assert paths
    for path in paths:
        found = folder / path
        assert found.exists(), f"{path} is not in {sorted(file.name for file in folder.iterdir())}"
        assert any(found.iterdir()) if found.is_dir() else found.stat().st_size, f"{path} is empty"


@pytest.mark.parametrize(("path", "kind"), [(GITHUB, "vendor.github-workflows"), (GITLAB, "vendor.gitlab-ci")])
def test_they_are_valid_by_the_schemas_of_the_services(path, kind):
    """Those that come with check-jsonschema; no network."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", kind]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("path", "kind", "good", "bad"),
    [
        (GITHUB, "vendor.github-workflows", "runs-on: ubuntu-latest", "runs-upon: ubuntu-latest"),
        (GITLAB, "vendor.gitlab-ci", "when: always", "when: perhaps"),
    ],
)
def test_those_schemas_find_mistakes(tmp_path, path, kind, good, bad):
    text = path.read_text()
    assert good in text
    (tmp_path / "wrong.yml").write_text(text.replace(good, bad))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", kind, str(tmp_path / "wrong.yml")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_every_job_installs_and_nothing_else_is_left_out():
    """The one line that these tests do not run is in every job of both."""
    for job in read(GITHUB)["jobs"].values():
        assert [step["run"] for step in job["steps"] if step.get("name") == "Install"] == [INSTALL]
    assert read(GITLAB)["default"]["before_script"] == [INSTALL]
    assert not [
        job for job in read(GITLAB).values() if isinstance(job, dict) and "before_script" in job and "script" in job
    ]


def test_both_services_run_the_same_commands():
    """One that is changed here and not there is a mistake."""

    def commands(scripts: Sequence[str]) -> list[str]:
        """With all options but the names of summaries, which the services have their own for."""
        joined = re.sub(r"\\\n|--(junit|markdown) \S+| > \S+| \|\| code=\$\?", " ", "\n".join(scripts))
        found = [line.split() for line in joined.splitlines() if line.strip().startswith("onnxslim ")]
        return [" ".join(words) for words in found]

    ours = [step["run"] for job in read(GITHUB)["jobs"].values() for step in job["steps"] if "run" in step]
    theirs = [line for job in ("quantize", "verify", "zoo") for line in read(GITLAB)[job]["script"]]
    theirs += read(GITLAB)["zoo"]["after_script"]
    assert commands(ours) == commands(theirs)
    assert [re.match(r"onnxslim (zoo )?\w+", command)[0] for command in commands(ours)] == [  # type: ignore[index]
        *("onnxslim quantize", "onnxslim validate", "onnxslim verify"),
        *("onnxslim zoo run", "onnxslim zoo diff", "onnxslim zoo gc", "onnxslim report"),
    ]


@runs_bash
def test_the_github_release_passes_and_finds_what_was_mixed_up(tmp_path):
    """quantize, then release; then with a release that is not what was measured."""
    runner = Runner.new(tmp_path)
    assert runner.github("quantize") == 0, runner.log
    assert_there(runner.folder, uploads("quantize"))
    assert "min-speedup" in runner.summary
    assert runner.github("release") == 0, runner.log
    assert_there(runner.folder, uploads("release"))
    assert "| answers | met |" in runner.summary
    (runner.folder / "verify.xml").unlink()
    runner.spoil()
    assert runner.github("release") == 2, runner.log
    assert "| content | MISSED |" in runner.summary
    assert_there(runner.folder, uploads("release", failed=True))
    assert "release/" not in uploads("release", failed=True)


@runs_bash
def test_the_gitlab_release_passes_and_finds_what_was_mixed_up(tmp_path):
    runner = Runner.new(tmp_path)
    assert runner.gitlab("quantize") == 0, runner.log
    assert_there(runner.folder, artifacts("quantize"))
    assert runner.gitlab("verify") == 0, runner.log
    assert_there(runner.folder, artifacts("verify"))
    (runner.folder / "verify.xml").unlink()
    runner.spoil()
    assert runner.gitlab("verify") == 2, runner.log
    assert_there(runner.folder, artifacts("verify", failed=True))
    assert "release/" not in artifacts("verify", failed=True)


@runs_bash
@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_a_model_that_got_worse_is_not_released(tmp_path, service):
    """Exit code 3, no model, and the proof says why."""
    runner = Runner.new(tmp_path)
    runner.worsen()
    assert getattr(runner, service)("quantize") == 3, runner.log
    assert not list((runner.folder / "release").iterdir())
    report = json.loads((runner.folder / "quantize.json").read_text())
    assert {verdict["gate"]: verdict["outcome"] for verdict in report["verdicts"]}["min-agreement"] == "missed"
    assert report["published"] is False


@runs_bash
@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_the_nightly_zoo(tmp_path, service):
    """The first night makes everything; after a release the next one compares with it and runs nothing again."""
    for name in ("altair", "vl_convert", "jinja2"):
        pytest.importorskip(name, reason="needs the extra [report]")
    runner = Runner.new(tmp_path)
    night = getattr(runner, service)
    job, kept = ("nightly", uploads) if service == "github" else ("zoo", artifacts)
    assert night(job) == 0, runner.log
    assert_there(runner.folder, [path for path in kept(job) if path != "diff.xml"])
    released = runner.folder / "released"
    released.mkdir()
    shutil.copy(runner.folder / "out" / "run.json", released / "run.json")
    for path in runner.folder.glob("*.xml"):
        path.unlink()  # as in a fresh checkout; out/ comes from the cache
    (runner.folder / "report.html").unlink()
    assert night(job) == 0, runner.log
    assert_there(runner.folder, kept(job))
    assert all(row["cached"] for row in json.loads((runner.folder / "out" / "run.json").read_text())["rows"])
    zoo = runner.folder / "zoo.toml"
    zoo.write_text(zoo.read_text().replace("max-drop = 2", 'max-drop = 2\nmax-size = "1MB"'))
    for path in runner.folder.glob("*.xml"):
        path.unlink()
    assert night(job) == 6, runner.log
    assert_there(runner.folder, kept(job, failed=True))
    assert b"fails now, and did not" in (runner.folder / "diff.xml").read_bytes()
