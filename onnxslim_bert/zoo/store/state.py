"""The state of a zoo, in a file: what is known of every task. One process writes, others read, any may be killed."""

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from onnxslim_bert.errors import OutputError, SlimError, one_line
from onnxslim_bert.zoo.engines.process import this_worker
from onnxslim_bert.zoo.engines.task import Ended, Task
from onnxslim_bert.zoo.store.file_hashes import sha256_of
from onnxslim_bert.zoo.store.lock import hold, is_held
from onnxslim_bert.zoo.store.state_file import StateFile


@dataclass(frozen=True)
class TaskState:
    """One task. status: "waiting", "running", or how it `Ended`, whose fields these are. attempts: how often its
    process began. started, ended: seconds since 1970, of the last attempt; memory, timeout: its limits, as of a `Task`.
    """

    key: str
    kind: str
    name: str
    status: str
    attempts: int
    started: float | None
    ended: float | None
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    message: str
    exit_code: int
    worker: str
    memory: int | None = None
    timeout: float | None = None


@dataclass(frozen=True)
class Invocation:
    """One time that something had the lock: what, in which process, when (seconds since 1970), and how it ended:
    "done", "interrupted", "killed" or the error. ended, outcome: None while it goes on.
    """

    what: str
    worker: str
    started: float
    ended: float | None
    outcome: str | None


COLUMNS = ", ".join(field.name for field in fields(TaskState))
EXPECT = """
INSERT INTO tasks (key, kind, name, run) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET kind = excluded.kind, name = excluded.name, run = excluded.run
"""


class RunState:
    """The state in the file `path`. Every change is on disk when its method returns.

    create: whether the file is made when it is not there. Raises OutputError where the file cannot be used.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        if not create and not path.is_file():
            raise OutputError(f"{path.parent}: no zoo was run here, there is no {path.name}")
        self.path = path
        self._file = StateFile(path)
        self._lock = path.with_suffix(".lock")
        self._run: int | None = None

    def __enter__(self) -> "RunState":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @contextlib.contextmanager
    def lock(self, what: str = "zoo run") -> Iterator[None]:
        """Be the only one who changes things here, until the block or the process ends, however it ends.

        Raises OutputError, naming the process, while another one has the lock.
        """
        with contextlib.closing(self._exclusive()):
            self._end_runs("killed")
            with self._file.change() as db:
                new = "INSERT INTO runs (what, worker, started) VALUES (?, ?, ?)"
                self._run = db.execute(new, (what, this_worker(), time.time())).lastrowid
            try:
                yield
            except BaseException as error:
                self._end_runs(_outcome(error))
                raise
            self._end_runs("done")

    def expect(self, tasks: Iterable[Task]) -> None:
        """Note that these tasks belong to the run that has the lock; tasks seen for the first time wait."""
        with self._file.change() as db:
            db.executemany(EXPECT, [(task.key, task.kind, task.name, self._run) for task in tasks])

    def begin(self, task: Task, worker: str) -> None:
        """The task's process is about to begin: one attempt more."""
        with self._file.change() as db:
            db.execute(EXPECT, (task.key, task.kind, task.name, self._run))
            db.execute(
                "UPDATE tasks SET status = 'running', attempts = attempts + 1, started = ?, ended = NULL, "
                "message = '', exit_code = 0, worker = ?, memory = ?, timeout = ? WHERE key = ?",
                (time.time(), worker, task.memory, task.timeout, task.key),
            )

    def finish(self, ended: Ended) -> None:
        """Note how a task ended. A task that no run saw begin, as its result was found, has 0 attempts."""
        how = (ended.status, ended.message, ended.exit_code)
        with self._file.change() as db:
            db.execute("INSERT OR IGNORE INTO tasks (key, run) VALUES (?, ?)", (ended.key, self._run))
            db.execute(
                "UPDATE tasks SET status = ?, message = ?, exit_code = ?, seconds = ?, cpu_seconds = ?, "
                "peak_bytes = ?, worker = ?, ended = ? WHERE key = ?",
                (*how, ended.seconds, ended.cpu_seconds, ended.peak_bytes, ended.worker, time.time(), ended.key),
            )

    def known(self, key: str) -> TaskState | None:
        """The task with this key; None when it was never seen."""
        return next(iter(self._tasks("WHERE key = ?", key)), None)

    def tasks(self) -> list[TaskState]:
        """All tasks of the last run."""
        return self._tasks("WHERE run = (SELECT max(run) FROM tasks) ORDER BY rowid")

    def needed(self) -> set[str]:
        """The keys of the tasks of the last run that came to its end, and of those that began after it."""
        last = "SELECT max(run) FROM tasks JOIN runs ON run = id WHERE outcome = 'done'"
        return {key for (key,) in self._file.rows(f"SELECT key FROM tasks WHERE run >= coalesce(({last}), 0)")}

    def forget(self, keys: Iterable[str]) -> None:
        """Forget how these tasks ended, so that they run again."""
        with self._file.change() as db:
            db.executemany(
                "UPDATE tasks SET status = 'waiting', message = '', exit_code = 0 WHERE key = ?",
                [(key,) for key in keys],
            )

    def runs(self) -> list[Invocation]:
        """Everything that had the lock, the first one first."""
        return [Invocation(*row) for row in self._file.rows("SELECT what, worker, started, ended, outcome FROM runs")]

    def going(self) -> Invocation | None:
        """What has the lock now; None when nothing does."""
        return self.runs()[-1] if is_held(self._lock) else None

    def sha256_of(self, path: Path) -> str:
        """sha256 of a file, read again only when it has changed. Raises DataError."""
        return sha256_of(path, self._file)

    def _tasks(self, where: str, *values: str) -> list[TaskState]:
        return [TaskState(*row) for row in self._file.rows(f"SELECT {COLUMNS} FROM tasks {where}", *values)]

    def _exclusive(self) -> sqlite3.Connection:
        try:
            return hold(self._lock)
        except sqlite3.Error as error:
            going = [f"`{run.what}` goes on here in process {run.worker}" for run in self.runs() if run.ended is None]
            raise OutputError(f"{self.path.parent}: {going[-1] if going else error}; wait for it or end it") from error

    def _end_runs(self, outcome: str) -> None:
        """Close the invocation that still goes on with this outcome; its running tasks wait again."""
        with self._file.change() as db:
            db.execute("UPDATE runs SET ended = ?, outcome = ? WHERE ended IS NULL", (time.time(), outcome))
            db.execute("UPDATE tasks SET status = 'waiting' WHERE status = 'running'")


def _outcome(error: BaseException) -> str:
    if isinstance(error, SlimError):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)}" if isinstance(error, Exception) else "interrupted"
