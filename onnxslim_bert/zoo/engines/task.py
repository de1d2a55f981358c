"""Tasks, how they end, and what an engine is: all that an engine knows of a zoo."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Status = Literal["done", "failed", "crashed", "timeout", "memory", "blocked"]


@dataclass(frozen=True)
class Task:
    """One piece of work, done by a process of its own.

    key: the content address of everything that decides its result, 64 hexadecimal digits. kind: what it does, a name in
    `engines.worker.KINDS` ("make", "study", "time") or module:function. name: for people, "minilm int8 cpu". payload:
    what the process needs to know, JSON-ready. target: on what it computes; a worker must have it. memory: bytes that
    the process and its children may have resident; timeout: seconds; None is no limit.
    """

    key: str
    kind: str
    name: str
    payload: dict[str, Any] = field(default_factory=dict)
    target: str = "cpu"
    memory: int | None = None
    timeout: float | None = None


@dataclass(frozen=True)
class Ended:
    """How a task ended.

    status: "done" has written objects/KEY/result.json; "failed" said why in one line (`message`, exit code 2 to 6);
    "crashed" ended by a signal or a traceback; "timeout" and "memory" passed a limit and were stopped; "blocked" could
    not be run, or its result not be kept, where that was to be: nothing is said of the task, and the next run tries it.
    seconds: wall; cpu_seconds and peak_bytes (resident): of the process and its children, as far as they were seen.
    worker: the host and process that ran it.
    """

    key: str
    status: Status
    message: str = ""
    exit_code: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    worker: str = ""


Started = Callable[[Task, str], None]  # a task, and the worker that begins it
Doing = Callable[[Task, str, int, int], None]  # a task that runs; what it is doing, steps done, steps in all
Ends = Generator[Ended, None, None]  # closed, it stops what runs


class Engine(Protocol):
    """Where tasks run. Interrupted, it stops what it started."""

    def executes(self, target: str) -> bool:
        """Whether the machines of this engine can run models on `target`, and not only write models for it."""
        ...

    def run(self, tasks: Iterable[Task], storage: str, started: Started, doing: Doing, *, alone: bool = False) -> Ends:
        """Run every task, each in a process of its own, and yield each as it ends, whatever its end.

        storage: the URL or the folder where results go. started: called before a task's process begins, each time that
        it does, by the thread that iterates. doing: called now and then while it runs, by any thread. alone: no two at
        once on one machine, for tasks that time.
        """
        ...
