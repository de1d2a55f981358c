"""A task in a process of its own, held to its limits."""

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from onnxslim_bert.errors import SlimError, one_line
from onnxslim_bert.machine import BLAS_THREADS
from onnxslim_bert.progress import Progress
from onnxslim_bert.zoo.engines.ending import Ending, ending
from onnxslim_bert.zoo.engines.process_tree import ProcessTree
from onnxslim_bert.zoo.engines.progress import said_in
from onnxslim_bert.zoo.engines.task import Ended, Task
from onnxslim_bert.zoo.store.storage import Storage, log_name, result_name

PAUSES = 0.1, 1.0  # seconds between two looks at the processes: more than the least where a look takes long:
SHARE = 0.02  # of one CPU that looking may take
FILES = "files"  # in its workspace, what a task leaves
TEMPORARY = ("TMPDIR", "TEMP", "TMP")  # variables that name the folder of temporary files
TAIL = 1 << 16  # bytes of the last output that are kept


def run_process(task: Task, storage: str, stop: threading.Event | None = None, say: Progress | None = None) -> Ended:
    """Run the task in a new process and say how it ended, whatever it does.

    The process and its children are killed when they pass the task's limits, when `stop` is set, and when this is
    interrupted. Nothing but a result in the storage makes a task "done". The last output of a process that was stopped
    or crashed is kept in the storage, as logs/KEY.txt. say: called with what the task says it is doing.
    """
    began = time.monotonic()
    tree, told = None, {}
    try:
        place = Storage(storage)
        with place.workspace() as folder, tempfile.TemporaryFile() as channel:
            with _process(task, storage, folder, channel) as process, _tail(process) as tail:
                tree = ProcessTree(process.pid)
                try:
                    stopped = _guard(process, tree, task, began, stop or threading.Event(), _hearing(folder, say))
                finally:
                    tree.kill()
                    process.wait()
            channel.seek(0)
            told = _json(channel.read())
        output = tail.decode(errors="replace")
        end = ending(stopped, told, process.returncode, place.exists(result_name(task.key)), output)
        if end.status in ("crashed", "timeout", "memory"):
            place.write(log_name(task.key), output.encode())
    except SlimError as error:
        end = Ending("blocked", one_line(error), error.exit_code)
    except Exception as error:  # no process can be started, or looked after
        end = Ending("blocked", one_line(error) or type(error).__name__, SlimError.exit_code)
    return Ended(
        task.key,
        *end,
        seconds=time.monotonic() - began,
        cpu_seconds=max(tree.cpu_seconds, float(told.get("cpu_seconds", 0))) if tree else 0.0,
        peak_bytes=tree.peak_bytes if tree else 0,
        worker=this_worker(),
    )


def this_worker() -> str:
    """The machine and the process that looks after tasks, as `Ended.worker` names them."""
    return f"{platform.node()} {os.getpid()}"


def _process(task: Task, storage: str, folder: Path, channel: IO[bytes]) -> subprocess.Popen[bytes]:
    files, temporary = folder / FILES, folder / "temporary"
    files.mkdir()
    temporary.mkdir()
    line = json.dumps({"task": asdict(task), "storage": storage, "folder": str(files)}) + "\n"
    return start(line.encode(), temporary, channel)


def in_new_python(line: bytes, temporary: Path, channel: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a worker that reads `line`, keeps temporary files in a folder, and says in `channel` how its task ended."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-u", "-X", "faulthandler", "-m", "onnxslim_bert.zoo.engines.worker"],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=channel,
        stderr=subprocess.PIPE,
        start_new_session=True,  # its own process group, and no Ctrl-C from a terminal
        env={
            **dict.fromkeys(BLAS_THREADS, "1"),
            **os.environ,
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            **dict.fromkeys(TEMPORARY, str(temporary)),  # what a killed process leaves goes, too
        },
    )
    with contextlib.suppress(OSError):  # it has ended already
        assert process.stdin
        process.stdin.write(line)
    return process


# tools/forked.py starts a fork, which is ready
start: Callable[[bytes, Path, IO[bytes]], subprocess.Popen[bytes]] = in_new_python


@contextlib.contextmanager
def _tail(process: subprocess.Popen[bytes]) -> Iterator[bytearray]:
    """What the process wrote last on stderr; complete after the block."""
    last = bytearray()

    def read() -> None:
        assert process.stderr
        while piece := process.stderr.read(TAIL):
            last.extend(piece)
            del last[:-TAIL]

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield last
    finally:
        reader.join(1)  # a process that got away may hold the pipe


def _guard(
    process: subprocess.Popen[bytes],
    tree: ProcessTree,
    task: Task,
    began: float,
    stop: threading.Event,
    hear: Callable[[], None],
) -> Ending | None:
    """Wait until the process ends or has to be stopped; returns why it has to be, None when it has ended."""
    pause = PAUSES[0]
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(pause)
            return None
        busy = time.thread_time()
        resident = tree.look()
        hear()
        pause = min(max(PAUSES[0], (time.thread_time() - busy) / SHARE), PAUSES[1])
        if stop.is_set():
            return Ending("crashed", "stopped with the run", 1)
        if task.memory is not None and resident > task.memory:
            return Ending("memory", f"{resident / 1e6:.0f} MB resident, more than its {task.memory / 1e6:.0f} MB", 1)
        if task.timeout is not None and time.monotonic() - began > task.timeout:
            return Ending("timeout", f"not done after its {task.timeout:g} seconds", 1)


def _hearing(folder: Path, say: Progress | None) -> Callable[[], None]:
    """A function to be called now and then: it tells `say` how far the task is, if that has changed."""
    last = None

    def hear() -> None:
        nonlocal last
        if say is not None and (now := said_in(folder / FILES)) not in (None, last):
            last = now
            say(*now)

    return hear


def _json(line: bytes) -> dict[str, Any]:
    """What the process said of its end, read from JSON; {} when it said nothing that can be read."""
    try:
        told: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return told
