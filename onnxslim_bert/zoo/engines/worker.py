"""The process of one task.

    python -P -m onnxslim_bert.zoo.engines.worker

It reads one JSON line on stdin, {"task": {...}, "storage": URL, "folder": PATH}, does the task and says how that ended
in one JSON line on what was its stdout; what libraries print goes to stderr. Its files become objects/KEY/NAME in the
storage; objects/KEY/result.json is written last, and the task counts as done from then on. stdin stays open: when it
closes, whoever started this is gone, and the process ends itself and its children at once.
"""

import contextlib
import errno
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import psutil

from onnxslim_bert.errors import SlimError, StorageError, one_line, raised_from
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.store.storage import Storage, result_name

KINDS = {
    "make": "onnxslim_bert.zoo.make:make",
    "time": "onnxslim_bert.zoo.timing:time_models",
    "study": "onnxslim_bert.zoo.study:study",
}
NO_ROOM = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO") if hasattr(errno, name)}
Function = Callable[[Task, Storage, Path], object]


def main() -> None:
    """Do one task, and exit without running destructors of native libraries, which might still crash the process."""
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)
        given = json.loads(sys.stdin.buffer.readline())
        end_with_parent()
        told = attempt(Task(**given["task"]), given["storage"], Path(given["folder"]))
        print(json.dumps({**told, "cpu_seconds": sum(os.times()[:4])}), file=channel)
    os._exit(0)


def attempt(task: Task, storage: str, folder: Path) -> dict[str, Any]:
    """Do the task in the empty `folder`; status, message and exit code as in `Ended`."""
    try:
        do(task, Storage(storage), folder)
    except SlimError as error:
        status = "blocked" if is_of_the_place(error) else "failed"
        return {"status": status, "message": one_line(error), "exit_code": error.exit_code}
    except MemoryError as error:
        traceback.print_exc()
        return {"status": "memory", "message": f"out of memory ({one_line(error)})", "exit_code": 1}
    except BaseException as error:
        traceback.print_exc()
        status = "blocked" if is_of_the_place(error) else "crashed"
        message = one_line(RuntimeError(f"{type(error).__name__}: {error}"))
        return {"status": status, "message": message, "exit_code": SlimError.exit_code if status == "blocked" else 1}
    return {"status": "done"}


def is_of_the_place(error: BaseException) -> bool:
    """Whether the machine or the storage is to blame, such as a full disk, so that the task is tried again."""
    return any(
        isinstance(one, StorageError) or (isinstance(one, OSError) and one.errno in NO_ROOM)
        for one in raised_from(error)
    )


def do(task: Task, storage: Storage, folder: Path) -> None:
    """Do the task and put its files and its result into the storage, unless its result is there already."""
    if storage.exists(result_name(task.key)):
        return
    result = function_of(task.kind)(task, storage, folder)
    if storage.exists(result_name(task.key)):  # another process was faster
        return
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        storage.put(f"objects/{task.key}/{path.relative_to(folder).as_posix()}", path, move=True)
    storage.write(result_name(task.key), result_json(result))


def function_of(kind: str) -> Function:
    """What a kind of task does: a name in KINDS, or module:function."""
    module, _, function = KINDS.get(kind, kind).partition(":")
    return cast(Function, getattr(importlib.import_module(module), function))


def result_json(result: object) -> bytes:
    """The content of result.json: the same bytes on every machine, so without the host, unless `result` holds one."""
    from onnxslim_bert.proof.documents import report_json

    document = report_json(result)
    if not hasattr(result, "host"):
        del document["host"]
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def end_with_parent() -> None:
    """From now on, kill this process and its group as soon as stdin closes."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()
    if sys.platform == "linux" and os.getpgrp() == os.getpid():
        # The thread waits for the interpreter's lock, which native code may hold for long; the kernel does not wait.
        import fcntl

        fcntl.fcntl(0, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)


def _wait_for_parent() -> None:
    while os.read(0, 1):
        pass
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(1)


if __name__ == "__main__":
    main()
