"""Whatever a task's process does, its end is told, its limits hold, and nothing of it stays."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from onnxslim_bert.machine import BLAS_THREADS
from onnxslim_bert.zoo.engines.ending import Ending, ending
from onnxslim_bert.zoo.engines.process import TAIL, run_process, this_worker
from onnxslim_bert.zoo.engines.task import Ended, Task
from onnxslim_bert.zoo.store.storage import Storage, log_name, result_name

PARENT = """
import json, sys
from onnxslim_bert.zoo.engines.process import run_process
from onnxslim_bert.zoo.engines.task import Task
run_process(Task(**json.loads(sys.argv[1])), sys.argv[2])
"""


def task(does: str, *, memory: int | None = None, timeout: float | None = None, **payload: object) -> Task:
    """A task of tasks.py."""
    key = hashlib.sha256(json.dumps([does, payload]).encode()).hexdigest()
    return Task(key, f"tasks:{does}", does, payload, memory=memory, timeout=timeout)


def run(folder: Path, does: str, **asked: object) -> Ended:
    return run_process(task(does, **asked), str(folder))  # type: ignore[arg-type]


def result(folder: Path, ended: Ended) -> dict:
    return json.loads((folder / result_name(ended.key)).read_bytes())


def until(holds: Callable[[], object], seconds: float = 2.0) -> bool:
    """Whether it holds within so many seconds."""
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.01)
    return bool(held)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_files_and_result_are_in_the_storage(tmp_path):
    """Under the task's key, with nothing else left behind."""
    ended = run(tmp_path, "write", files={"model.onnx": "weights", "deep/data": "more"}, value=7)
    assert (ended.status, ended.message, ended.exit_code, ended.worker) == ("done", "", 0, this_worker())
    assert result(tmp_path, ended)["value"] == 7
    assert Storage(tmp_path).names(f"objects/{ended.key}") == [
        f"objects/{ended.key}/{name}" for name in ("deep/data", "model.onnx", "result.json")
    ]
    assert (tmp_path / f"objects/{ended.key}/deep/data").read_text() == "more"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_same_task_gives_the_same_bytes(tmp_path):
    """The host and its load are no part of a result."""
    first, second = run(tmp_path / "a", "write", value=7), run(tmp_path / "b", "write", value=7)
    written = [(tmp_path / folder / result_name(first.key)).read_bytes() for folder in "ab"]
    assert written[0] == written[1]
    assert first.key == second.key
    assert "host" not in json.loads(written[0])


def test_a_result_that_is_there_is_not_made_again(tmp_path):
    """A run that was killed between the result and the account of it asks a second time."""
    Storage(tmp_path).write(result_name(task("leave_at_once", code=3).key), b"{}")
    assert run(tmp_path, "leave_at_once", code=3).status == "done"
    assert result(tmp_path, run(tmp_path, "leave_at_once", code=3)) == {}


def test_killed_before_its_result_a_task_is_not_done(tmp_path):
    """Its files are there already, and do not count."""
    ended = run(tmp_path, "die_before_the_result", files={"model.onnx": "weights"})
    assert ended.status == "crashed"
    assert Storage(tmp_path).names(f"objects/{ended.key}") == [f"objects/{ended.key}/model.onnx"]


ENDS = {
    "SlimError": (task("miss_budget"), "failed", "5 points lost", 3),
    "exception": (task("fail_unexpectedly"), "crashed", "ValueError: no such thing", 1),
    "sys.exit": (task("leave", code=3), "crashed", "SystemExit: 3", 1),
    "exit 0": (task("leave_at_once", code=0), "crashed", "ended with exit code 0 and without a result", 1),
    "exit 7": (task("leave_at_once", code=7), "crashed", "ended with exit code 7 and without a result", 1),
    "SIGSEGV": (task("read_nowhere"), "crashed", "killed by signal 11 (SIGSEGV)", 1),
    "SIGABRT": (
        task("kill_itself", signal=signal.SIGABRT),
        "crashed",
        "killed by signal 6 (SIGABRT); it last said: terminate called",
        1,
    ),
    "MemoryError": (task("run_out_of_memory"), "memory", "out of memory (unable to allocate 4 TiB)", 1),
    "no function": (
        Task("0" * 64, "tasks:nothing", ""),
        "crashed",
        "AttributeError: module 'tasks' has no attribute 'nothing'",
        1,
    ),
    "bad file": (
        task("write", files={".hidden": ""}),
        "failed",
        "'objects/{key}/.hidden' is no name for a file in {folder}; no part may be empty or start with a dot",
        2,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_told(tmp_path, end):
    """As a status, one line, and an exit code; what crashed leaves its last output."""
    asked, status, message, code = ENDS[end]
    ended = run_process(asked, str(tmp_path))
    told = message.replace("{key}", asked.key).replace("{folder}", str(tmp_path))
    assert (ended.status, ended.message, ended.exit_code) == (status, told, code)
    assert not Storage(tmp_path).exists(result_name(asked.key))
    assert Storage(tmp_path).exists(log_name(asked.key)) == (status != "failed")


def test_a_crash_leaves_its_traceback(tmp_path):
    """In the log, also that of native code."""
    log = (tmp_path / log_name(run(tmp_path, "fail_unexpectedly").key)).read_text()
    assert log.rstrip().endswith("ValueError: no such\nthing")
    log = (tmp_path / log_name(run(tmp_path, "read_nowhere").key)).read_text()
    assert "Segmentation fault" in log
    assert "in read_nowhere" in log


@pytest.mark.parametrize(
    ("returncode", "output", "message"),
    [
        (-9, "", "killed by signal 9 (SIGKILL), perhaps by the system for want of memory"),
        (-6, "what(): bad_alloc\n\n", "killed by signal 6 (SIGABRT); it last said: what(): bad_alloc"),
        (-6, "last\nFatal Python error: Aborted\nstack\n", "killed by signal 6 (SIGABRT); it last said: last"),
        (-64 - 1, "", "killed by signal 65 (unknown here)"),
        (3221225477, "", "ended with exit code 3221225477 and without a result"),
    ],
)
def test_an_end_that_was_not_told_is_judged_from_the_outside(returncode, output, message):
    """By the exit code, with the last words."""
    assert ending(None, {}, returncode, False, output) == Ending("crashed", message, 1)


def test_only_a_result_makes_done():
    """A process that says so without one has crashed; with one, whatever stopped it came too late."""
    told, stopped = {"status": "done"}, Ending("timeout", "late", 1)
    assert ending(None, told, 0, False, "").status == "crashed"
    assert ending(None, told, 0, True, "").status == "done"
    assert ending(stopped, {}, -9, True, "").status == "done"
    assert ending(stopped, {}, -9, False, "") is stopped


def test_noise_is_no_end(tmp_path):
    """Megabytes on stdout and stderr, some that look like an end, neither block the task nor fool anyone."""
    ended = run(tmp_path, "chatter")
    assert ended.status == "done"
    assert result(tmp_path, ended)["value"] == "said"

    ended = run(tmp_path, "chatter", fail=True)
    assert (ended.status, ended.message) == ("crashed", "RuntimeError: after much noise")
    log = (tmp_path / log_name(ended.key)).read_text()
    assert len(log) == TAIL
    assert log.rstrip().endswith("RuntimeError: after much noise")


def test_a_timeout_ends_the_process(tmp_path):
    """Soon after its time."""
    ended = run(tmp_path, "sleep", timeout=0.5)
    assert (ended.status, ended.message, ended.exit_code) == ("timeout", "not done after its 0.5 seconds", 1)
    assert 0.5 <= ended.seconds < 20
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("does", ["eat", "let_child_eat"])
def test_a_memory_cap_ends_the_process(tmp_path, does):
    """Its own memory and its children's count."""
    ended = run(tmp_path, does, megabytes=400, memory=150 << 20)
    assert ended.status == "memory"
    assert ended.message.endswith(" MB resident, more than its 157 MB")
    assert ended.exit_code == 1
    assert ended.peak_bytes > 150 << 20


def test_limits_that_hold_do_not_show(tmp_path):
    """And what was used is told."""
    ended = run(tmp_path, "eat", megabytes=100, seconds=1.2, memory=400 << 20, timeout=60)
    assert ended.status == "done"
    assert 100 << 20 < ended.peak_bytes < 400 << 20
    assert 1.2 < ended.seconds < 20
    assert 0 < ended.cpu_seconds < 10


def test_nothing_outlives_its_task(tmp_path):
    """Not even a child that was left behind."""
    ended = run(tmp_path, "leave_child")
    assert until(lambda: not lives(result(tmp_path, ended)["value"]))


def test_the_process_has_a_folder_of_its_own(tmp_path, monkeypatch):
    """Empty, on the storage's file system; one thread for BLAS; temporary files where they go with it."""
    monkeypatch.setenv("ONNXSLIM_DATA", "/kept")
    for name in BLAS_THREADS:
        monkeypatch.delenv(name, raising=False)
    seen = result(tmp_path, run(tmp_path, "environment"))["value"]
    assert seen["ONNXSLIM_DATA"] == "/kept"
    assert seen["OPENBLAS_NUM_THREADS"] == "1"
    assert seen["files"] == []
    for folder in (seen["folder"], seen["TMPDIR"]):
        assert Path(folder).is_relative_to(tmp_path)
        assert not Path(folder).exists()
    assert seen["folder"] != seen["TMPDIR"]


def test_a_storage_that_fails_blocks_the_task(tmp_path):
    """As a row, not as the end of a run; and it says nothing of the task."""
    (tmp_path / "out").write_text("a file")
    ended = run(tmp_path / "out", "write")
    assert (ended.status, ended.exit_code) == ("blocked", 2)
    assert str(tmp_path / "out") in ended.message
    ended = run_process(task("write"), "nonsense://x")
    assert (ended.status, ended.exit_code, ended.peak_bytes) == ("blocked", 2, 0)


def test_a_process_that_cannot_be_started_blocks_the_task(tmp_path, monkeypatch):
    """One fork that fails is one row, too."""

    def no_more(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_more)
    ended = run(tmp_path, "write")
    assert (ended.status, ended.exit_code) == ("blocked", 2)
    assert "Resource temporarily unavailable" in ended.message


def test_a_disk_that_is_full_blocks_the_task(tmp_path):
    """Whether its error was foreseen or not; what cannot be written anywhere fails."""
    ended = run(tmp_path, "write_nowhere", number=errno.ENOSPC, foreseen=True)
    assert (ended.status, ended.message, ended.exit_code) == ("blocked", "model.onnx: cannot be written", 2)
    ended = run(tmp_path, "write_nowhere", number=errno.ENOSPC, foreseen=False)
    assert (ended.status, ended.exit_code) == ("blocked", 2)
    assert "No space left on device" in ended.message
    ended = run(tmp_path, "write_nowhere", number=errno.EISDIR, foreseen=True)
    assert (ended.status, ended.exit_code) == ("failed", 2)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_its_parent(tmp_path, number):
    """The parent is killed, or interrupted, while native code holds the child's interpreter, which has a child too."""
    pids = tmp_path / "pids"
    asked = task("say_pids_and_hold_the_interpreter", pids=str(pids))
    fields = json.dumps({"key": asked.key, "kind": asked.kind, "name": asked.name, "payload": asked.payload})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, fields, str(tmp_path)], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        assert until(lambda: pids.exists() and pids.read_text().endswith("\n"), 30)
        family = [int(pid) for pid in pids.read_text().split()]
        assert len(family) == 3
        assert all(lives(pid) for pid in family)
        parent.send_signal(number)
        assert until(lambda: not any(lives(pid) for pid in family))
        assert parent.wait(10) != 0
    finally:
        parent.kill()
        parent.wait()
