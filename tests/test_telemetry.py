"""No command speaks to a network, and none writes but its outputs: ONNX Runtime's telemetry is off."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import contents, environment, run_python, workspace

from onnxslim_bert.cli import COMMANDS

# Each command, and what it may leave in the folder, by how names begin. All are run one after the other.
RUN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("model.onnx", ()),
    ("inspect model.onnx --sha256", ()),
    ("passes", ()),
    ("recipes", ()),
    ("schema report", ()),
    ("doctor", ()),
    ("quantize model.onnx --calib calib.tsv --data eval.tsv --method minmax -o int8.onnx", ("int8.",)),
    ("quantize model.onnx --mode dynamic -o dynamic.onnx", ("dynamic.",)),
    ("slim model.onnx -p canonicalize,fuse -o slim.onnx", ("slim.",)),
    (
        "slim model.onnx --target-size 70kB --max-drop 100 --calib calib.tsv --data eval.tsv -o small.onnx",
        ("small.",),
    ),
    ("slim model.onnx -p canonicalize,fuse,decouple{layers=1} -o apart.onnx", ("apart.",)),
    ("split apart.onnx -o serving", ("serving",)),
    ("validate model.onnx int8.onnx --data eval.tsv --latency --junit v.xml", ("v.xml",)),
    ("bench model.onnx int8.onnx --seq 4 --rounds 2", ()),
    ("explain model.onnx --target nnapi", ()),
    ("verify int8.onnx", ()),
    ("report int8.json -o report.html", ("report.html",)),
    ("mobile model.onnx -o phone", ("phone",)),
    ("device bundle model.onnx --data eval.tsv --rows 3 --runs 1 --target cpu -o bundle", ("bundle",)),
    ("zoo init zoo -o zoo.toml --calib calib.tsv", ("zoo.toml",)),
    ("zoo run zoo.toml -o out --jobs 1", ("out",)),
    ("zoo status out", ("out",)),
    ("zoo retry out", ("out",)),
    ("zoo diff out out", ("out",)),
    ("zoo gc out", ("out",)),
)
NOT_RUN = {"compile", "distill", "export"}  # need a chip's compiler, or PyTorch
ALL = """
import json, sys
from onnxslim_bert.cli import main
for command in json.load(sys.stdin):
    try:
        main(command.split())
        code = 0
    except SystemExit as end:
        code = end.code or 0
    print("ended", code, command, file=sys.stderr, flush=True)
"""
TRACED = "trace=%network,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
WRITES = re.compile(r"\b(?:O_WRONLY|O_RDWR|O_CREAT)\b|^(?:creat|mkdir|rename|link|symlink)")
HARMLESS = ("/dev/null", "/dev/tty", "/dev/shm/", "/proc/", "pipe:", "/memfd")


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    """The folder in which everything was run, what each command ended with, and what the system was asked for.

    There are a home and a folder of temporary files beside it. Without strace nothing is known of the system's calls.
    """
    place = tmp_path_factory.mktemp("traced")
    folder, log = place / "work", place / "log"
    for name in ("work", "home", "temporary", "work/zoo"):
        (place / name).mkdir()
    workspace(folder)
    for name in ("model.onnx", "tokenizer.json"):
        shutil.copyfile(folder / name, folder / "zoo" / name)
    variables = environment(
        HOME=str(place / "home"), XDG_CACHE_HOME="", TMPDIR=str(place / "temporary"), PYTHONDONTWRITEBYTECODE="1"
    )
    variables.pop("ORT_DISABLE_TELEMETRY", None)
    tracer = ["strace", "-f", "-e", TRACED, "-o", str(log)] if shutil.which("strace") else []
    done = subprocess.run(
        [*tracer, sys.executable, "-c", ALL],
        input=json.dumps([command for command, _ in RUN]),
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    ended = [line for line in done.stderr.splitlines() if line.startswith("ended ")]
    return folder, ended, log.read_text(errors="replace").splitlines() if tracer else []


def test_every_command_is_run():
    named = {command.split()[0] for command, _ in RUN}
    assert named >= COMMANDS.keys() - NOT_RUN


def test_commands_leave_nothing_but_their_outputs(traced):
    """In their folder, at home and among temporary files."""
    folder, ended, _ = traced
    assert ended == [f"ended 0 {command}" for command, _ in RUN]
    outputs = tuple(name for _, names in RUN for name in names)
    given = {"model.onnx", "tokenizer.json", "calib.tsv", "eval.tsv", "zoo", "zoo/model.onnx", "zoo/tokenizer.json"}
    assert [path for path in contents(folder) if path not in given and not path.startswith(outputs)] == []
    assert contents(folder.parent / "home") == {}
    assert contents(folder.parent / "temporary") == {}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_command_opens_a_socket(traced):
    """Of the internet, nor one that asks for addresses; a process and its children."""
    _, _, calls = traced
    assert len(calls) > 1000
    assert [call for call in calls if re.search(r"AF_INET|AF_NETLINK|AF_PACKET", call)] == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_command_opens_a_file_elsewhere_to_write(traced):
    folder, _, calls = traced
    written = set()
    for call in calls:
        name = call.split(None, 1)[1] if " " in call else call
        if WRITES.search(name) and " = -1 " not in call:
            written |= {str(folder / path) for path in re.findall(r'"([^"]*)"', name)}
    own = tuple(f"{folder.parent}/{name}" for name in ("work", "temporary"))
    assert sorted(path for path in written if not path.startswith((*own, *HARMLESS))) == []
    assert any(path.endswith("int8.onnx") for path in written)


def test_the_library_alone_switches_it_off():
    """Whoever imports the package first, and onnxruntime through it."""
    said = "import os, onnxslim_bert.graph.sessions; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run_python(said) == "1"


def test_a_user_may_have_it_otherwise():
    said = "import os, onnxslim_bert; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run_python(said, ORT_DISABLE_TELEMETRY="0") == "0"
