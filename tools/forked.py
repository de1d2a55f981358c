"""Work in a fork, which has everything imported, instead of in a new Python: a second of CPU less each time."""

import contextlib
import faulthandler
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, TextIO, cast

from onnxslim_bert.graph import apart
from onnxslim_bert.zoo.engines import process, worker

_one_at_a_time = threading.Lock()  # or a fork would hold open what another waits for


def use_forks() -> None:
    """From now on, open models apart and do the tasks of a zoo in forks of this process.

    Not where a command is killed: a fork shares its locks, and may live on for a moment.
    """
    apart.ask, process.start = ask, start_worker


class Fork:
    """`work` in a forked process, with what callers use of a `subprocess.Popen`.

    It reads `given` on 0, which stays open until this process closes it or ends, and prints to descriptors out and err.
    """

    def __init__(self, work: Callable[[], int], out: int, err: int, given: bytes = b"") -> None:
        self.returncode: int | None = None
        self.stderr: io.FileIO | None = None
        with _one_at_a_time:
            reads, self._stdin = os.pipe()
            os.write(self._stdin, given)
            self.pid = os.fork()
            if not self.pid:
                _one_at_a_time.release()  # of this process, which may fork again
                os.close(self._stdin)
                for number, handle in enumerate((reads, out, err)):
                    os.dup2(handle, number)
                become(work)
            os.close(reads)

    def wait(self, timeout: float = float("inf")) -> int:
        """Its exit code, below 0 for a signal; raises TimeoutExpired when it goes on after so many seconds."""
        deadline, pause = time.monotonic() + timeout, 0.001
        while self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise subprocess.TimeoutExpired([], timeout)
            else:
                time.sleep(pause)
                pause = min(2 * pause, 0.02)
        return self.returncode

    def __enter__(self) -> "Fork":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._stdin)
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        if self.stderr is not None:
            self.stderr.close()


def ask(arguments: Sequence[str], seconds: float) -> "subprocess.CompletedProcess[str]":
    """What `onnxslim_bert.graph.apart.main` prints, and how it ends, in a fork; as `apart.ask`."""
    path, row, left = arguments
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with Fork(lambda: apart.main(Path(path), Path(row), float(left)), out.fileno(), err.fileno()) as fork:
            code = fork.wait(seconds)
        texts = [file.read().decode(errors="replace") for file in (out, err) if not file.seek(0)]
        return subprocess.CompletedProcess(list(arguments), code, *texts)


def start_worker(line: bytes, temporary: Path, channel: IO[bytes]) -> "subprocess.Popen[bytes]":
    """A worker of a zoo in a fork; as `process.start`."""

    def work() -> int:
        os.setsid()
        os.environ |= dict.fromkeys(process.TEMPORARY, str(temporary))
        tempfile.tempdir = None
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
        worker.main()
        return 0

    reads, writes = os.pipe()
    fork = Fork(work, channel.fileno(), writes, line)
    os.close(writes)
    fork.stderr = io.FileIO(reads)
    return cast("subprocess.Popen[bytes]", cast(Any, fork))


def become(work: Callable[[], int]) -> NoReturn:
    """Do `work` as a forked process, printing where 1 and 2 lead; end with the code that it returns or exits with."""
    code = 1
    faulthandler.disable()  # of a crash tells who waits for the fork
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
