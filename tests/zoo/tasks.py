"""What test tasks do in their processes, named as kinds: "tasks:sleep"."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.errors import AccuracyGateError, OutputError
from onnxslim_bert.zoo.engines.progress import teller
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.store.storage import Storage

SLEEP = "import time; time.sleep(60)"


@dataclass(frozen=True)
class Wrote:
    """A result. value: of the payload. pid: not of the content, 0 unless asked for."""

    value: object = None
    pid: int = 0


def write(task: Task, storage: Storage, folder: Path) -> Wrote:
    """Leave the payload's files, {name: text}."""
    for name, text in task.payload.get("files", {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Wrote(task.payload.get("value"))


def environment(task: Task, storage: Storage, folder: Path) -> Wrote:
    """What the process sees of its surroundings."""
    names = ("OPENBLAS_NUM_THREADS", "ONNXSLIM_DATA", "TMPDIR")
    return Wrote(
        {
            **{name: os.environ.get(name) for name in names},
            "folder": str(folder),
            "files": [path.name for path in folder.iterdir()],
        }
    )


def write_nowhere(task: Task, storage: Storage, folder: Path) -> Wrote:
    """Meet an error of the operating system, foreseen or not."""
    number = int(task.payload["number"])
    try:
        raise OSError(number, os.strerror(number))
    except OSError as error:
        if not task.payload["foreseen"]:
            raise
        raise OutputError("model.onnx: cannot be written") from error


def count(task: Task, storage: Storage, folder: Path) -> Wrote:
    """Count to three and say so, slowly enough to be heard."""
    tell = teller(folder)
    for number in (1, 2, 3):
        tell("counting", number, 3)
        time.sleep(0.6)
    return Wrote()


def sleep(task: Task, storage: Storage, folder: Path) -> Wrote:
    """Sleep for a minute."""
    time.sleep(60)
    return Wrote()


def meet(task: Task, storage: Storage, folder: Path) -> Wrote:
    """Write a line "begin NAME" to the payload's log, and "end NAME" once as many lines begin so as it says."""
    log = Path(task.payload["log"])
    _append(log, f"begin {task.name}\n")
    while log.read_text().count("begin") < task.payload["count"]:
        time.sleep(0.02)
    _append(log, f"end {task.name}\n")
    return Wrote()


def _append(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(line)


def wait_for(task: Task, storage: Storage, folder: Path) -> Wrote:
    """End when there is a file of the payload's name in the storage."""
    while not storage.exists(task.payload["name"]):
        time.sleep(0.02)
    return Wrote()


def say_pids_and_hold_the_interpreter(task: Task, storage: Storage, folder: Path) -> Wrote:
    """With a child, be in native code that lets no other thread of Python run."""
    child = subprocess.Popen([sys.executable, "-c", SLEEP])
    grandchild = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    grandchild.start()
    Path(task.payload["pids"]).write_text(f"{os.getpid()} {child.pid} {grandchild.pid}\n")
    ctypes.PyDLL(None).sleep(60)
    return Wrote()


def kill_itself(task: Task, storage: Storage, folder: Path) -> Wrote:
    """End by the payload's signal, after some last words."""
    print("terminate called", flush=True)
    os.kill(os.getpid(), task.payload["signal"])
    time.sleep(60)
    return Wrote()


def read_nowhere(task: Task, storage: Storage, folder: Path) -> Wrote:
    """A segmentation fault."""
    ctypes.string_at(0)
    return Wrote()


def leave(task: Task, storage: Storage, folder: Path) -> Wrote:
    """What a library does that calls exit."""
    sys.exit(task.payload["code"])


def leave_at_once(task: Task, storage: Storage, folder: Path) -> Wrote:
    """What native code does that calls _exit."""
    os._exit(task.payload["code"])


def fail_unexpectedly(task: Task, storage: Storage, folder: Path) -> Wrote:
    """A traceback."""
    raise ValueError("no such\nthing")


def miss_budget(task: Task, storage: Storage, folder: Path) -> Wrote:
    """A SlimError with an exit code of its own."""
    raise AccuracyGateError("5 points lost")


def run_out_of_memory(task: Task, storage: Storage, folder: Path) -> Wrote:
    """What an allocation does that the system refuses."""
    raise MemoryError("unable to allocate 4 TiB")


def eat(task: Task, storage: Storage, folder: Path) -> Wrote:
    """Fill the payload's megabytes and keep them."""
    eaten = b"\1" * (task.payload["megabytes"] << 20)
    time.sleep(task.payload.get("seconds", 60))
    return Wrote(len(eaten))


def let_child_eat(task: Task, storage: Storage, folder: Path) -> Wrote:
    """The same in a child."""
    program = f"eaten = b'1' * ({task.payload['megabytes']} << 20); {SLEEP}"
    subprocess.run([sys.executable, "-c", program], check=True)
    return Wrote()


def leave_child(task: Task, storage: Storage, folder: Path) -> Wrote:
    """End, and leave a child that goes on."""
    child = subprocess.Popen([sys.executable, "-c", SLEEP])
    return Wrote(child.pid)


def chatter(task: Task, storage: Storage, folder: Path) -> Wrote:
    """Print much, from Python and past it, also what looks like the end of a task; fail if asked to."""
    print('{"status": "failed", "message": "noise", "exit_code": 6}', flush=True)
    os.write(1, b'{"status": "crashed"}\n')
    for _ in range(64):
        os.write(1, b"x" * 65535 + b"\n")
        os.write(2, b"y" * 65535 + b"\n")
    if "fail" in task.payload:
        raise RuntimeError("after much noise")
    return Wrote("said")


def die_before_the_result(task: Task, storage: Storage, folder: Path) -> Wrote:
    """Be killed when the files are in the storage and the result is not."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Storage.write = die  # type: ignore[method-assign]
    return write(task, storage, folder)
