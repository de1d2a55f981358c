"""A command run on files that may be damaged: what it cost, printed and left, and what of that is wrong.

Each run is a fork of this process, which has imported everything already, in a session of its own with limits on time
and memory: a run costs milliseconds more than its work, and a crash, a hang or a full memory ends that run alone.
"""

import contextlib
import importlib
import os
import pkgutil
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from forked import become

import onnxslim_bert.cli
from onnxslim_bert.cli.screen import echo
from onnxslim_bert.inspection.inspection import inspect

GB = 1 << 30
PERMITTED = (0, 2, 3, 4, 5, 6)  # exit codes that a run may end with
TEMPORARY = (".onnxslim-", ".~")
SEEN = Path(__file__).parents[1] / "tests" / "fixtures" / "bert-ts17-sdpa.onnx"
ENDING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Limits:
    """What one run may use: CPU seconds, seconds, resident bytes, and bytes of one file (0: no limit).

    wall_s: by the clock, less those in which other work kept it from a processor (Linux).
    """

    cpu_s: float = 30
    wall_s: float = 60
    resident: int = GB
    file_bytes: int = 0


@dataclass(frozen=True)
class Run:
    """One run: its exit code (below 0 a signal), what it printed, and what it used; new: files it left, by name.

    wall_s: as in `Limits`.
    """

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str
    wall_s: float
    cpu_s: float
    resident: int
    new: tuple[str, ...] = ()


def warm() -> None:
    """Import every command and what it imports when it runs, and look at a model: what that reads once, forks share."""
    for module in pkgutil.walk_packages(onnxslim_bert.__path__, "onnxslim_bert."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    inspect(SEEN)


def run(arguments: Sequence[str], folder: Path, limits: Limits, variables: Mapping[str, str] | None = None) -> Run:
    """`onnxslim ARGUMENTS` in `folder`, with these environment variables besides."""
    return finish(start(arguments, folder, limits, variables), limits)


@dataclass(frozen=True)
class Started:
    """A run that goes on. before: the files that were there. kept: with what it prints; temporary: its $TMPDIR."""

    arguments: tuple[str, ...]
    folder: Path
    before: Mapping[str, tuple[int, int]]
    kept: tempfile.TemporaryDirectory[str]
    temporary: Path
    began: float
    child: int


def start(
    arguments: Sequence[str],
    folder: Path,
    limits: Limits,
    variables: Mapping[str, str] | None = None,
    temporary: Path | None = None,
) -> Started:
    """Begin `onnxslim ARGUMENTS` in `folder`. temporary: where it keeps temporary files, by default a new folder."""
    before, kept = _files(folder), tempfile.TemporaryDirectory()
    if temporary is None:
        temporary = Path(kept.name, "tmp")
        temporary.mkdir()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until the child is the command; this process would handle them
    child = os.fork()
    if not child:
        os.environ |= variables or {}
        _become(arguments, folder, Path(kept.name, "out"), Path(kept.name, "err"), temporary, limits)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    return Started(tuple(arguments), folder, before, kept, temporary, time.monotonic(), child)


def finish(started: Started, limits: Limits) -> Run:
    """Wait for its end, and look at what it left."""
    usage, status, kept_waiting = _wait(started.child, limits.wall_s)
    wall_s = time.monotonic() - started.began - kept_waiting
    with started.kept as kept:
        out, err = (_said(Path(kept, name)) for name in ("out", "err"))
        leftover = tuple(f"$TMPDIR/{name}" for name in sorted(_files(started.temporary)))
    after = _files(started.folder)
    changed = sorted(name for name in after if started.before.get(name) != after[name])
    cpu_s, code = usage.ru_utime + usage.ru_stime, os.waitstatus_to_exitcode(status)
    return Run(started.arguments, code, out, err, wall_s, cpu_s, usage.ru_maxrss * 1024, (*changed, *leftover))


def _said(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def wrongs(done: Run, limits: Limits, *, several: bool = False, own: str = "") -> list[str]:
    """What of a run breaks a promise, in a word or two each; empty when nothing does.

    several: of jobs; one that fails may say so beside files and lines of the others. own: the same, with the folder in
    which alone such files may lie.
    """
    found = []
    new = [name for name in done.new if not (own and f"{name}/".startswith(f"{own}/"))]
    if "Traceback (most recent call last)" in done.err:
        frames = [line for line in done.err.splitlines() if not line.startswith(" ") and ":" in line]
        found.append(f"traceback {frames[-1][:120] if frames else ''}")
    elif done.code < 0:
        found.append(f"signal {signal.Signals(-done.code).name}")
    elif done.code not in PERMITTED:
        found.append(f"exit code {done.code}")
    elif done.code == 2 and len(done.err.strip().splitlines()) != 1 and not (several or own):
        found.append(f"{len(done.err.strip().splitlines())} lines of error")
    elif re.search(r"exit code 1\b", done.err):
        found.append("a process that it started failed itself, with exit code 1")
    elif done.code and not done.err.strip():
        found.append("no word of error")
    if done.code == 2 and new and not several:
        found.append(f"refused, and left {new[0]}")
    if any(_is_temporary(name) for name in done.new):
        found.append(f"a temporary file stayed: {next(name for name in done.new if _is_temporary(name))}")
    if done.cpu_s > limits.cpu_s or done.wall_s > limits.wall_s:
        found.append(f"{done.cpu_s:.0f} s of CPU, {done.wall_s:.0f} s in all")
    if done.resident > limits.resident:
        found.append(f"{done.resident / GB:.1f} GB")
    if any(ord(letter) < 32 and letter not in "\n\t" for letter in done.out + done.err):
        found.append("control characters on the screen")
    return found


class Tally:
    """How often each outcome came, and how many trials broke a promise."""

    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._broken = 0

    def add(self, outcome: str, wrong: Sequence[str], command: str) -> None:
        """Count a trial of `command`, and print which promises it broke."""
        self._outcomes[outcome] += 1
        self._broken += bool(wrong)
        for item in wrong:
            echo(f"BROKEN {outcome} | {command}: {item}")

    def end(self, what: str) -> NoReturn:
        """Print the counts of `what`, and exit: with 1 when a promise was broken."""
        for outcome, times in sorted(self._outcomes.items()):
            echo(f"{times:6} {outcome}")
        echo(f"{self._outcomes.total()} {what}, {self._broken} broke a promise")
        sys.exit(1 if self._broken else 0)


def _is_temporary(name: str) -> bool:
    return name.startswith("$TMPDIR") or any(part.startswith(TEMPORARY) for part in name.split("/"))


@contextlib.contextmanager
def copy_of(folder: Path) -> Iterator[Path]:
    """A copy of `folder` to run in, gone in the end."""
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(shutil.copytree(folder, Path(temporary) / "work"))


def _become(arguments: Sequence[str], folder: Path, out: Path, err: Path, temporary: Path, limits: Limits) -> NoReturn:
    """Be the command; never returns."""

    def command() -> int:
        os.setsid()
        os.chdir(folder)
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        resource.setrlimit(resource.RLIMIT_CPU, (int(limits.cpu_s) + 5, int(limits.cpu_s) + 6))
        resource.setrlimit(resource.RLIMIT_AS, (limits.resident + 3 * GB, limits.resident + 3 * GB))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if limits.file_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as `onnxslim_bert.__main__` begins
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        onnxslim_bert.cli.main(list(arguments))
        return 0

    become(command)


def _wait(child: int, wall_s: float) -> tuple[resource.struct_rusage, int, float]:
    """What the child and what it waited for used, how it ended, and how long other work kept it waiting.

    It is killed with its session when it takes longer than `wall_s` without that.
    """
    began, pause, kept_waiting = time.monotonic(), 0.002, 0.0
    while True:
        with contextlib.suppress(OSError, IndexError):
            kept_waiting = int(Path(f"/proc/{child}/schedstat").read_text().split()[1]) / 1e9
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return usage, status, kept_waiting
        if time.monotonic() - began - kept_waiting > wall_s:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            began += wall_s
        time.sleep(pause)
        pause = min(pause * 1.2, 0.05)


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Files and folders below `folder`: size and time of change, in nanoseconds."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        found[str(path.relative_to(folder))] = (0, 0) if path.is_dir() else (state.st_size, state.st_mtime_ns)
    return found


def same_answers(source: Path, made: Path, tolerance: float | None, limits: Limits) -> list[str]:
    """What is wrong with a written model: that it does not open or run, or answers otherwise than its source.

    tolerance: of the largest answer; None compares nothing. A source that does not run cannot be compared with. In a
    process of its own, since ONNX Runtime may crash.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "said")
        child = os.fork()
        if not child:
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (int(limits.cpu_s), int(limits.cpu_s) + 1))
                said.write_text("\n".join(_differences(source, made, tolerance)))
            except BaseException as error:
                said.write_text(f"written, and {error!r}"[:300])
            os._exit(0)
        _, status, _ = _wait(child, limits.wall_s)
        if os.waitstatus_to_exitcode(status):
            return ["written, and ONNX Runtime crashes on it"]
        return said.read_text().splitlines()


def _differences(source: Path, made: Path, tolerance: float | None) -> list[str]:
    import numpy as np

    from onnxslim_bert.graph.sessions import open_session
    from onnxslim_bert.graph.signature import input_dtypes

    after = open_session(made)
    try:
        before = open_session(source, optimize=False)
        masks = _masks(source)
        types, given = input_dtypes(before), _feeds(before, masks)
        fed = _feeds(after, masks)
        given |= {name: values.astype(types[name]) for name, values in fed.items()}
        wanted = [np.asarray(output) for output in before.run(None, given)]
    except Exception:  # whatever ONNX Runtime raises: the source cannot run, so nothing is to be compared
        return []
    after.run(None, fed)
    if tolerance is None:
        return []
    plain = open_session(made, optimize=False)  # as the source: ONNX Runtime's own rounding moves int8 by a whole step
    found = [np.asarray(output) for output in plain.run(None, fed)]
    wrong = []
    for name, a, b in zip((o.name for o in before.get_outputs()), wanted, found, strict=True):
        if np.shape(a) != np.shape(b):
            wrong.append(f"output {name!r} has shape {np.shape(b)}, was {np.shape(a)}")
        elif a.dtype.kind == "f" and np.isfinite(a).all():
            largest = float(np.abs(a - b).max(initial=0)) / (float(np.abs(a).max(initial=0)) + 1e-6)
            if not largest <= tolerance:
                wrong.append(f"output {name!r} is off by {largest:.2g} of its largest value")
    return wrong


def _masks(model: Path) -> set[str]:
    """The inputs that hide padding, whatever they are called; none where that is not known."""
    from onnxslim_bert.errors import SlimError
    from onnxslim_bert.model.input_roles import roles_of

    try:
        return {name for name, taken in roles_of(model).items() if taken.role == "mask"}
    except SlimError:
        return set()


def _feeds(session: Any, masks: Collection[str]) -> dict[str, Any]:
    """A batch for whatever the session takes: ids below 19, masks of ones with padding behind."""
    import numpy as np

    from onnxslim_bert.graph.signature import input_dtypes

    rng, feeds = np.random.default_rng(0), {}
    for given, dtype in zip(session.get_inputs(), input_dtypes(session).values(), strict=True):
        open_sizes = {0: 3, 1: 7}
        shape = [s if isinstance(s, int) and s > 0 else open_sizes.get(i, 2) for i, s in enumerate(given.shape)]
        low, high = (0, 2) if "type" in given.name else (2, 19)
        values = rng.integers(low, high, shape)
        if "mask" in given.name or given.name in masks:
            values = np.ones(shape, np.int64)
            values[-1:, shape[-1] // 2 :] = 0
        feeds[given.name] = values.astype(dtype)
    return feeds
