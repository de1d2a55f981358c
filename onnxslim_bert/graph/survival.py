"""Whether a file of others ends ONNX Runtime, and this process with it: tried in a fork before any of it runs here.

The fork opens the file and runs it on two made-up rows: some faults of kernels, as GatherND's with batch_dims below 0,
show at a run alone. A file with exits is run without rows, too, as its layers are when all texts have left.
"""

import contextlib
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.bounds import A_LOAD, LOADED, LOADED_A_SECOND, MEMORY, TIMES, memory_within
from onnxslim_bert.graph.exits import NO_ROWS, leaves_early
from onnxslim_bert.graph.native_path import native_path
from onnxslim_bert.graph.patience import patience
from onnxslim_bert.graph.signature import DTYPES

with contextlib.suppress(ImportError):  # Windows has none
    import resource

CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, *([signal.SIGBUS] * (os.name == "posix")))
WAITED = 10  # times the seconds of CPU that an opening may take: by the clock, after which the fork ends
ROWS, TOKENS = 2, 8  # that are run, where the graph leaves them open
A_RUN = 2  # seconds of CPU that the run may take, beyond the opening
_SURVIVED: set[tuple[int, int, int, int]] = set()


def check_survives(path: Path, nbytes: int) -> None:
    """Raise ModelError when ONNX Runtime crashes on the file at `path`, of `nbytes` with its weights.

    What it refuses in words, and what takes too long or too much memory, is left to whoever opens the file next. A file
    is tried once, as long as it does not change; elsewhere than on Linux, where a fork may not use what this process
    has loaded, it is not.
    """
    if sys.platform != "linux" or _state(path) in _SURVIVED:
        return
    try:
        child = os.fork()
    except OSError:  # no process or memory to spare: what opens the file next says so, where it matters
        return
    if not child:
        _open_and_end(path, nbytes)
    try:
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    code = os.waitstatus_to_exitcode(status)
    if -code in CRASHES:
        name = signal.Signals(-code).name
        early = -code == signal.SIGFPE and leaves_early(path)  # it divides by the number of rows
        remedy = f"texts leave it early: needed onnxruntime {NO_ROWS}" if early else "export the model again"
        raise ModelError(f"{path}: ONNX Runtime crashes when it opens or runs it ({name}); {remedy}")
    survived(path)


def survived(path: Path) -> None:
    """Note that ONNX Runtime opened and ran the file without a crash."""
    _SURVIVED.add(_state(path))


def _state(path: Path) -> tuple[int, int, int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _open_and_end(path: Path, nbytes: int) -> NoReturn:
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nothing, number)
        for crash in CRASHES:
            signal.signal(crash, signal.SIG_DFL)
        seconds = math.ceil(A_LOAD + nbytes / LOADED_A_SECOND + patience.left) + 1
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        signal.alarm(WAITED * seconds)  # a lock that another thread held when this process was forked stays held
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        with memory_within(LOADED + TIMES * nbytes, ""):
            session = ort.InferenceSession(native_path(path), options, providers=["CPUExecutionProvider"])
        seconds = math.ceil(time.process_time()) + A_RUN
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        with memory_within(MEMORY + TIMES * nbytes, ""):
            session.run(None, _feeds(session, ROWS))
            if leaves_early(path):
                session.run(None, _feeds(session, 0))
    finally:
        os._exit(0)


def _feeds(session: ort.InferenceSession, rows: int) -> dict[str, Array]:
    """Ones for every input: no padding, and a row that every table of two rows has."""
    feeds = {}
    for given in session.get_inputs():
        shape = [size if isinstance(size, int) else TOKENS if place else rows for place, size in enumerate(given.shape)]
        feeds[given.name] = np.ones(shape, DTYPES[given.type])
    return feeds
