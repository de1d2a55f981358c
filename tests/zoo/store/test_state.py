"""The state of a zoo survives whatever happens to the processes that write and read it."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from onnxslim_bert.errors import DataError, ModelError, OutputError
from onnxslim_bert.zoo.engines.process import this_worker
from onnxslim_bert.zoo.engines.task import Ended, Task
from onnxslim_bert.zoo.store import file_hashes
from onnxslim_bert.zoo.store.state import RunState

TASK = Task("a" * 64, "make", "minilm int8 cpu")
OTHER = Task("b" * 64, "time", "minilm cpu")
BEGIN_FOR_EVER = """
import itertools, sys
from pathlib import Path
from onnxslim_bert.zoo.store.state import RunState
from onnxslim_bert.zoo.engines.task import Ended, Task
with RunState(Path(sys.argv[1])) as state, state.lock("zoo run"):
    for number in itertools.count():
        state.begin(Task(f"{number % 3}", "make", "x"), "here 1")
        print(number, flush=True)
        state.finish(Ended(f"{number % 3}", "done"))
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "zoo.sqlite"


@pytest.fixture
def state(path):
    with RunState(path) as opened:
        yield opened


def program(code: str, *arguments: object) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_task_is_told_from_first_to_last(state):
    """Waiting, running, ended; each attempt counts before it ends."""
    assert state.known(TASK.key) is None
    state.expect([TASK])
    waiting = state.known(TASK.key)
    assert waiting is not None
    assert (waiting.kind, waiting.name, waiting.status, waiting.attempts) == ("make", TASK.name, "waiting", 0)

    state.begin(TASK, "here 1")
    running = state.known(TASK.key)
    assert running is not None
    assert (running.status, running.attempts, running.worker, running.ended) == ("running", 1, "here 1", None)
    assert running.started is not None
    assert abs(running.started - time.time()) < 10

    state.finish(Ended(TASK.key, "crashed", "killed by signal 11 (SIGSEGV)", 1, 2.5, 3.5, 1000, "here 2"))
    ended = state.known(TASK.key)
    assert ended is not None
    assert ended.ended is not None
    assert (ended.kind, ended.name, ended.status, ended.attempts) == ("make", TASK.name, "crashed", 1)
    assert (ended.message, ended.exit_code, ended.worker) == ("killed by signal 11 (SIGSEGV)", 1, "here 2")
    assert (ended.seconds, ended.cpu_seconds, ended.peak_bytes) == (2.5, 3.5, 1000)

    state.begin(TASK, "here 1")
    again = state.known(TASK.key)
    assert again is not None
    assert (again.status, again.attempts, again.message, again.exit_code, again.ended) == ("running", 2, "", 0, None)


def test_it_is_there_when_the_file_is_opened_again(path):
    """By another process, also while this one goes on."""
    with RunState(path) as state:
        state.begin(TASK, "here 1")
        with RunState(path, create=False) as reader:
            assert reader.known(TASK.key) == state.known(TASK.key)
    with RunState(path) as state:
        again = state.known(TASK.key)
        assert again is not None
        assert again.attempts == 1
        assert state.known("unknown") is None


def test_an_end_without_a_beginning_has_no_attempt(state):
    """A result that was found."""
    state.finish(Ended(TASK.key, "done"))
    found = state.known(TASK.key)
    assert found is not None
    assert (found.status, found.attempts, found.name) == ("done", 0, "")
    state.expect([TASK])
    named = state.known(TASK.key)
    assert named is not None
    assert (named.status, named.name) == ("done", TASK.name)


def test_what_is_forgotten_waits(state):
    """And only that; how often it began stays known."""
    for task in (TASK, OTHER):
        state.begin(task, "here 1")
        state.finish(Ended(task.key, "crashed", "killed", 1))
    state.forget([TASK.key, "unknown"])
    first, second = map(state.known, (TASK.key, OTHER.key))
    assert first is not None
    assert second is not None
    assert (first.status, first.message, first.exit_code, first.attempts) == ("waiting", "", 0, 1)
    assert second.status == "crashed"
    assert state.known("unknown") is None


def test_limits_of_the_last_attempt_are_known(state):
    state.begin(replace(TASK, memory=10**9, timeout=60.0), "here 1")
    known = state.known(TASK.key)
    assert known is not None
    assert (known.memory, known.timeout) == (10**9, 60.0)


def test_where_nothing_can_be_written_the_state_is_read(path, monkeypatch):
    """As SQLite does it for a file of its own kind on a medium that is read-only."""
    with RunState(path) as state, state.lock():
        state.begin(TASK, "host 1")
    connect = sqlite3.connect

    def read_only(name, **options):
        if "immutable" not in str(name):
            name, options = f"file:{path.parent}/nowhere/zoo.sqlite?mode=ro", {**options, "uri": True}
        return connect(name, **options)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with RunState(path, create=False) as state:
        assert [task.name for task in state.tasks()] == [TASK.name]
        with pytest.raises(OutputError, match="readonly database"):
            state.expect([TASK])


def test_what_an_interrupted_run_did_not_come_to_is_needed(path):
    """Of every run since the last one that came to its end, and of that one."""
    third = Task("c" * 64, "make", "minilm fast cpu")
    with RunState(path) as state:
        with state.lock():
            state.expect([OTHER, third])
        with state.lock():
            state.expect([TASK, OTHER])
        with state.lock("zoo gc"):
            pass
        assert state.needed() == {TASK.key, OTHER.key}
        with contextlib.suppress(KeyboardInterrupt), state.lock():
            state.expect([TASK])
            raise KeyboardInterrupt
        assert {task.key for task in state.tasks()} == {TASK.key}
        assert state.needed() == {TASK.key, OTHER.key}


def test_by_default_the_last_run_is_told(path):
    """Tasks that a later run does not have are not its."""
    with RunState(path) as state:
        with state.lock():
            state.expect([TASK, OTHER])
            state.finish(Ended(TASK.key, "done"))
        with state.lock():
            state.expect([TASK])
        with state.lock("zoo gc"):
            pass
        assert [task.key for task in state.tasks()] == [TASK.key]


def test_killed_at_any_moment_nothing_is_lost(path):
    """Every attempt that was announced is counted, the lock is free, and what was running waits."""
    announced = 0
    for _ in range(4):
        writer = program(BEGIN_FOR_EVER, path)
        assert writer.stdout
        for _, line in zip(range(40), writer.stdout, strict=False):
            announced += bool(line)
        writer.send_signal(signal.SIGKILL)
        announced += len(writer.stdout.read().splitlines())
        writer.wait()
    with RunState(path) as state, state.lock():
        tasks = [task for key in "012" if (task := state.known(key))]
        attempts = sum(task.attempts for task in tasks)
        assert announced <= attempts <= announced + 4
        assert {task.status for task in tasks} <= {"waiting", "done"}
        assert [run.outcome for run in state.runs()] == ["killed"] * 4 + [None]


def test_a_second_run_is_refused_and_told_of_the_first(path):
    """By the process; what only reads is not."""
    holder = program(BEGIN_FOR_EVER, path)
    try:
        assert holder.stdout
        holder.stdout.readline()
        with RunState(path) as state:
            going = state.going()
            assert going is not None
            assert (going.what, going.worker.split()[1]) == ("zoo run", str(holder.pid))
            with pytest.raises(OutputError, match=rf"`zoo run` goes on here in process \S+ {holder.pid}; wait"):
                state.lock("zoo gc").__enter__()
            assert state.known("0") is not None
            assert [run.what for run in state.runs()] == ["zoo run"]
    finally:
        holder.kill()
        holder.communicate()
    with RunState(path) as state:
        assert state.going() is None
    with RunState(path) as state, state.lock("zoo gc"):
        assert [run.what for run in state.runs()] == ["zoo run", "zoo gc"]


def test_one_process_has_the_lock_once(path):
    """Two threads of a service are two runs."""
    with (
        RunState(path) as first,
        RunState(path) as second,
        first.lock(),
        pytest.raises(OutputError, match=f"in process {this_worker()}"),
        second.lock(),
    ):
        pass
    with RunState(path) as state, state.lock():
        pass


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(143), "interrupted"),
        (ModelError("model.onnx: no model"), "model.onnx: no model"),
        (ValueError("x"), "ValueError: x"),
    ],
)
def test_how_a_run_ended_is_told(state, error, outcome):
    """And the lock is free again, and nothing runs."""

    def run() -> None:
        with state.lock("zoo run zoo.toml"):
            state.begin(TASK, "here 1")
            raise error

    with pytest.raises(type(error)):
        run()
    with state.lock():
        pass
    first, second = state.runs()
    assert (first.what, first.worker, first.outcome, second.outcome) == (
        "zoo run zoo.toml",
        this_worker(),
        outcome,
        "done",
    )
    assert first.ended is not None
    assert first.started <= first.ended
    assert [task.status for task in state.tasks()] == ["waiting"]


def test_a_newer_state_is_refused(path):
    """It may mean other things by the same columns."""
    RunState(path).__exit__()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(OutputError, match=r"zoo.sqlite: written by a newer onnxslim-bert \(its version 2, here 1\)"):
        RunState(path)


@pytest.mark.parametrize("content", [b"no database at all, but some text" * 99, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_state_is_refused(path, content):
    """And left as it is."""
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"zoo.sqlite: no state of a zoo, or a damaged one \(.*\); move it away"):
        RunState(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE tasks; CREATE VIEW tasks AS "
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT * FROM r",
        "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM tasks; END",
    ],
)
def test_a_state_that_would_run_something_is_refused(path, statement):
    """A view may take for ever to read, a trigger does what it likes."""
    RunState(path)._file.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(statement)
    with pytest.raises(OutputError, match=r"no state of a zoo, it has the (view tasks|trigger t)"):
        RunState(path)


def test_a_damaged_state_is_refused(path):
    """Whenever the damage is met."""
    with RunState(path) as state:
        state.expect([Task(f"{number:064}", "make", "x" * 300) for number in range(200)])
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = b"\xa5" * (len(content) - 4096 * 3)
    path.write_bytes(content)
    with pytest.raises(OutputError, match="damaged one"), RunState(path) as state:
        list(map(state.known, [f"{number:064}" for number in range(200)]))


def test_a_folder_that_is_not_there_is_said(tmp_path):
    """In one line; and what only reads makes no file."""
    with pytest.raises(OutputError, match=r"zoo.sqlite: cannot be used \(unable to open database file\)"):
        RunState(tmp_path / "missing" / "zoo.sqlite")
    with pytest.raises(OutputError, match="no zoo was run here"):
        RunState(tmp_path / "zoo.sqlite", create=False)
    assert list(tmp_path.iterdir()) == []


def test_readers_and_the_writer_do_not_wait(path):
    """A reader in the middle of reading holds nobody up, and reads what was when it began."""
    with RunState(path) as state:
        state.begin(TASK, "here 1")
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT attempts FROM tasks").fetchall() == [(1,)]
        began = time.monotonic()
        state.begin(TASK, "here 1")
        assert time.monotonic() - began < 10
        assert reader.execute("SELECT attempts FROM tasks").fetchall() == [(1,)]
        reader.close()


def test_two_may_make_the_file_at_once(path):
    """As two commands may that start together."""
    errors: list[Exception] = []

    def open_it() -> None:
        try:
            RunState(path).__exit__()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_file_is_read_again_only_when_it_changed(state, tmp_path, monkeypatch):
    """A changed size, time or inode is a change."""
    read: list[Path] = []
    real = file_hashes.file_sha256

    def counted(*paths: Path) -> str:
        read.extend(paths)
        return real(*paths)

    monkeypatch.setattr(file_hashes, "file_sha256", counted)
    file = tmp_path / "model.onnx"

    def content(text: str, age: float) -> str:
        file.write_text(text)
        os.utime(file, (0, time.time() - age))
        return state.sha256_of(file)

    first = content("weights", 100)
    (tmp_path / "link.onnx").symlink_to(file)
    assert state.sha256_of(file) == first == state.sha256_of(tmp_path / "link.onnx")
    assert len(read) == 1
    assert content("weightS", 50) != first
    assert len(read) == 2
    stamp = file.stat()
    file.unlink()
    (tmp_path / "held").write_text("")  # so that the inode is not used again
    file.write_text("weight!")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    if file.stat().st_ino != stamp.st_ino:
        state.sha256_of(file)
        assert len(read) == 3


def test_a_file_that_was_just_written_is_read_again(state, tmp_path):
    """Its next change might show the same time."""
    file = tmp_path / "model.onnx"
    file.write_text("weights")
    stamp = file.stat()
    first = state.sha256_of(file)
    file.write_text("weightS")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert state.sha256_of(file) != first


def test_a_file_that_cannot_be_read_is_named(state, tmp_path):
    """Missing, or a folder."""
    with pytest.raises(DataError, match=r"model.onnx: cannot be read \(No such file or directory\)"):
        state.sha256_of(tmp_path / "model.onnx")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        state.sha256_of(tmp_path)
