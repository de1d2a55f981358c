"""Short seeded runs of the programs behind docs/reliability.md, and proof that they see what they look for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import ROOT, environment, workspace
from document_damage import PLACES, damaged, is_none
from forked import become
from hostile_trial import VERBS, ZOO
from trial_cases import MODEL, Case, Prepared, state_of, strangers
from trial_runs import GB, Limits, Run, wrongs

LIMITS = Limits()
QUICK = "device bundle"  # a command of a second


def tool(name: str, *arguments: str) -> str:
    """What a program in tools/ prints; it must find no broken promise."""
    command = [sys.executable, str(ROOT / "tools" / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ended(code: int = 2, err: str = "onnxslim: no\n", out: str = "", new: tuple[str, ...] = (), **used: float) -> Run:
    cost = {"wall_s": 1.0, "cpu_s": 1.0, "resident": 1 << 20} | used
    return Run(("inspect", "model.onnx"), code, out, err, cost["wall_s"], cost["cpu_s"], int(cost["resident"]), new)


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (ended(1, "Traceback (most recent call last):\nValueError: no\n"), "traceback ValueError: no"),
        (ended(1, "onnxslim: no\n"), "exit code 1"),
        (ended(-11, ""), "signal SIGSEGV"),
        (ended(2, "onnxslim: no\nand more\n"), "2 lines of error"),
        (ended(2, ""), "0 lines of error"),
        (ended(2, "onnxslim: m.onnx: ONNX Runtime ends with it (exit code 1); nothing was written\n"), "failed itself"),
        (ended(new=("made.onnx",)), "refused, and left made.onnx"),
        (ended(0, "", new=(".onnxslim-x/half",)), "a temporary file stayed: .onnxslim-x/half"),
        (ended(0, "", new=("$TMPDIR/x",)), "a temporary file stayed"),
        (ended(cpu_s=31.0), "31 s of CPU"),
        (ended(resident=2.0 * GB), "2.0 GB"),
        (ended(0, "", "\x1b[31m"), "control characters"),
    ],
)
def test_a_broken_promise_is_seen(done, said):
    assert any(said in wrong for wrong in wrongs(done, LIMITS))


def test_what_is_refused_in_one_line_or_done_breaks_none():
    assert wrongs(ended(), LIMITS) == []
    assert wrongs(ended(0, "", "done\n", ("made.onnx",)), LIMITS) == []


def test_a_fork_of_a_fork_prints_where_1_leads(tmp_path):
    """A fork that becomes a command starts one more, which opens what was written: both print."""
    printed = tmp_path / "printed"
    outer = os.fork()
    if not outer:
        os.dup2(os.open(printed, os.O_WRONLY | os.O_CREAT), 1)
        become(_print_and_fork)
    assert os.waitstatus_to_exitcode(os.waitpid(outer, 0)[1]) == 0
    assert printed.read_text() == "outer\ninner\n"


def _print_and_fork() -> int:
    print("outer")
    inner = os.fork()
    if not inner:
        become(lambda: print("inner") or 0)
    return os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])


def test_mutants_of_models_break_no_promise():
    assert ", 0 broke a promise" in tool("fuzz_models.py", "--count", "10", "--seed", "20", "--jobs", "2")


def test_damaged_documents_break_no_promise():
    assert ", 0 broke a promise" in tool("fuzz_documents.py", "--count", "25", "--seed", "20")


@pytest.mark.parametrize(
    ("name", "kind", "data", "none"),
    [
        ("a.json", "json", b'{"a": 1}', False),
        ("a.json", "json", b'\xef\xbb\xbf{"a": 1}', False),
        ("a.json", "json", b'{"a": 1', True),
        ("a.json", "json", b"[]", True),
        ("a.jsonl", "jsonl", b'{"a": 1}\n[]\n', True),
        ("a.toml", "toml", b"a = 1\n", False),
        ("a.toml", "toml", b"a = ", True),
        ("a.tsv", "text", b"sentence\nw1\n", False),
        ("a.tsv", "text", b"sentence\nw\x001\n", True),
        ("a.tsv", "text", b"\xff", True),
        ("a.npz", "npz", b"PK", True),
        ("a.pb", "bytes", b"", True),
        ("a.pb", "bytes", b"x", False),
    ],
)
def test_what_is_certainly_no_document_is_known(tmp_path, name, kind, data, none):
    (tmp_path / name).write_bytes(data)
    assert is_none(tmp_path / name, kind) is none


@pytest.mark.parametrize("kind", ["json", "jsonl", "toml", "text", "bytes"])
def test_documents_are_damaged_in_many_ways_and_the_same_every_time(tmp_path, kind):
    """No damage fails on a document of its kind."""
    text = {"json": b'{"a": [1, {"b": "c"}]}', "jsonl": b'{"a": 1}\n{"a": "b"}\n', "toml": b"[a]\nb = 1\nc = 2\n"}
    seen = {}
    for number in [*range(150), *range(20)]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        path.write_bytes(text.get(kind, b"w1 w2\tw3\n"))
        said = damaged(path, kind, np.random.default_rng(number))
        made = path.read_bytes()[:1000] if said not in PLACES else b""
        assert seen.setdefault(number, (said, made)) == (said, made)
    assert len({said for said, _ in seen.values()}) > 20


def test_a_mutant_is_the_same_every_time():
    from fuzz_models import mutant

    assert [mutant(3, i)[2] for i in range(20)] == [mutant(3, i)[2] for i in range(20)]
    assert len({mutant(3, i)[0] for i in range(60)}) > 15


def test_interrupted_commands_break_no_promise():
    assert ", 0 broke a promise" in tool("kill_trial.py", "--count", "4", "--seed", "2", "--only", QUICK)


def test_full_and_read_only_disks_break_no_promise():
    said = tool("disk_trial.py", "--count", "4", "--seed", "2", "--only", QUICK)
    assert ", 0 broke a promise" in said
    assert "a read-only folder of outputs: exit code 2" in said


def test_races_break_no_promise():
    assert ", 0 broke a promise" in tool("race_trial.py", "--count", "3", "--seed", "2", "--only", QUICK)


@pytest.mark.parametrize(
    ("now", "state"),
    [
        ({"made.onnx": b"old", "made.json": b"old"}, "old"),
        ({"made.onnx": b"new", "made.json": b"any other"}, "new"),
        ({"made.onnx": b"new", "made.json": b"old"}, "half: made.json"),
        ({"made.onnx": b"ne", "made.json": b"other"}, "half: made.onnx"),
        ({"made.onnx": b"new"}, "half: ['made.json']"),
        ({}, "half"),
    ],
)
def test_halves_of_outputs_are_seen(tmp_path, now, state):
    before, after = (dict.fromkeys(MODEL, age) for age in (b"old", b"new"))
    for name, content in {**now, "model.onnx": b"", ".made.tmp": b""}.items():
        (tmp_path / name).write_bytes(content)
    template = tmp_path / "template"
    template.mkdir()
    (template / "model.onnx").touch()
    prepared = Prepared(Case("slim", MODEL, "slim"), template, before, after, 1.0)
    assert state_of(tmp_path, prepared).startswith(state)
    assert strangers(tmp_path, prepared) == [".made.tmp", "template"]


def test_hostile_files_are_refused_or_right(tmp_path: Path):
    """Every verb on each file of a folder, and both in a zoo with a sound one: one is cut off, one has nodes twice."""
    model = workspace(tmp_path)
    data = model.read_bytes()
    model.write_bytes(data[:-700])
    (tmp_path / "merged.onnx").write_bytes(data + data)
    assert tool("hostile_trial.py", str(tmp_path)).strip().endswith(f"{2 * len(VERBS) + len(ZOO)} runs, 0 wrong")
