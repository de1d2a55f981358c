"""No command speaks to a network, and none writes but its outputs: ONNX Runtime's telemetry is off."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import contents, environment, run_python, workspace

COMMANDS = {
    "inspect": ("inspect", "model.onnx"),
    "quantize": ("quantize", "model.onnx", "--mode", "dynamic", "-o", "o.onnx"),
    "slim": ("slim", "model.onnx", "-p", "canonicalize,fuse", "-o", "o.onnx"),
    "validate": ("validate", "model.onnx", "model.onnx", "--data", "eval.tsv"),
    "bench": ("bench", "model.onnx", "--seq", "4", "--rounds", "2"),
    "doctor": ("doctor",),
}


def run_traced(folder: Path, command: tuple[str, ...], *before: str) -> None:
    """Run a command in `folder` with a home and a folder of temporary files of its own, which must stay empty."""
    home, temporary = folder.parent / "home", folder.parent / "temporary"
    for place in (home, temporary):
        place.mkdir(exist_ok=True)
    variables = environment(HOME=str(home), XDG_CACHE_HOME="", TMPDIR=str(temporary))
    variables.pop("ORT_DISABLE_TELEMETRY", None)
    arguments = [*before, sys.executable, "-m", "onnxslim_bert", *command]
    done = subprocess.run(arguments, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(home) == {}
    assert contents(temporary) == {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    workspace(work)
    return work


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_leaves_nothing_but_its_outputs(folder, name):
    before = contents(folder)
    run_traced(folder, COMMANDS[name])
    after = contents(folder)
    assert {path for path in after if path not in before} <= {"o.onnx", "o.json"}
    assert {path: after[path] for path in before} == before


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("name", ["inspect", "quantize", "bench"])
def test_no_command_opens_a_socket(folder, name):
    """Of the internet; a process and its children."""
    log = folder.parent / "trace"
    run_traced(folder, COMMANDS[name], "strace", "-f", "-e", "trace=socket,connect,sendto", "-o", str(log))
    calls = [line for line in log.read_text().splitlines() if "AF_INET" in line or "AF_NETLINK" in line]
    assert calls == []


def test_the_library_alone_switches_it_off():
    """Whoever imports the package first, and onnxruntime through it."""
    said = "import os, onnxslim_bert.graph.sessions; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run_python(said) == "1"


def test_a_user_may_have_it_otherwise():
    said = "import os, onnxslim_bert; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run_python(said, ORT_DISABLE_TELEMETRY="0") == "0"
