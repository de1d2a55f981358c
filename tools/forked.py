"""Open models apart in a fork, which has everything imported, instead of in a new Python: a second of CPU less each."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

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
            _be(arguments)
        os.close(reads)
        try:
            code = _end(child, seconds)
        finally:
            os.close(writes)
        if code is None:
            raise subprocess.TimeoutExpired(list(arguments), seconds)
        texts = [file.read().decode(errors="replace") for file in (out, err) if not file.seek(0)]
        return subprocess.CompletedProcess(list(arguments), code, *texts)


def _be(arguments: Sequence[str]) -> None:
    """Be the process; never returns."""
    code = 1
    try:
        sys.stdout, sys.stderr = (open(number, "w", buffering=1) for number in (1, 2))  # noqa: SIM115
        path, row, left = arguments
        code = apart.main(Path(path), Path(row), float(left))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


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
