"""Open models apart in a fork, which has everything imported, instead of in a new Python: a second of CPU less each."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from onnxslim_bert.graph import apart


def ask(arguments: Sequence[str], seconds: float) -> "subprocess.CompletedProcess[str]":
    """What `onnxslim_bert.graph.apart.main` prints, and how it ends, in a fork; as `apart.ask`."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        reads, writes = os.pipe()
        child = os.fork()
        if not child:
            os.close(writes)
            for number, handle in enumerate((reads, out.fileno(), err.fileno())):
                os.dup2(handle, number)
            become(lambda: _open_apart(*arguments))
        os.close(reads)
        try:
            code = _end(child, seconds)
        finally:
            os.close(writes)
        if code is None:
            raise subprocess.TimeoutExpired(list(arguments), seconds)
        texts = [file.read().decode(errors="replace") for file in (out, err) if not file.seek(0)]
        return subprocess.CompletedProcess(list(arguments), code, *texts)


def _open_apart(path: str, row: str, left: str) -> int:
    return apart.main(Path(path), Path(row), float(left))


def become(work: Callable[[], int]) -> NoReturn:
    """Do `work` as a forked process, printing where 1 and 2 lead; end with the code that it returns or exits with."""
    code = 1
    try:
        sys.stdout, sys.stderr = (_prints(number) for number in (1, 2))
        code = work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _prints(number: int) -> TextIO:
    """What writes to descriptor `number`; that it stays open where a fork of this fork puts another in its place."""
    return open(number, "w", buffering=1, closefd=False)


def _end(child: int, seconds: float) -> int | None:
    """The exit code of a child, below 0 for a signal; None where it was killed since it took longer."""
    deadline, pause = time.monotonic() + seconds, 0.001
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
