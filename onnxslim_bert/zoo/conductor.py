"""The conductor runs those tasks of a run that have no result yet, and writes down how each ended."""

import json
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Protocol

from onnxslim_bert.zoo.engines.task import Ended, Engine, Task
from onnxslim_bert.zoo.store.state import RunState, TaskState
from onnxslim_bert.zoo.store.storage import Storage, result_name

UNENDED = ("waiting", "running")
# Without a result, a task of these statuses runs (again). The others failed by themselves, and would fail again.
RUNS_AGAIN = (*UNENDED, "done", "blocked")


class RunListener(Protocol):
    """Told of what happens in a run, from any thread: a progress bar, or lines on stderr."""

    def waiting(self, tasks: Sequence[Task], cached: int) -> None:
        """The tasks that are to be run; of `cached` more the result is there."""

    def started(self, task: Task, worker: str) -> None:
        """The process of `task` begins, on `worker`."""

    def doing(self, task: Task, stage: str, done: int, total: int) -> None:
        """`task` has done `done` of `total` steps of `stage`."""

    def ended(self, task: Task, ended: Ended) -> None:
        """`task` ended, well or not."""


class Conductor:
    """Runs the tasks that have no result yet. ran: the keys of those that it started."""

    def __init__(self, engine: Engine, storage: Storage, url: str, state: RunState, watch: RunListener) -> None:
        self.engine, self.storage, self.url, self.state, self.watch = engine, storage, url, state, watch
        self.ran: set[str] = set()
        self._read: dict[str, bytes] = {}  # results as they were read: an object store takes its time for each

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> None:
        """Run the tasks that are not over (see `is_over`), and note how each ends.

        alone: one task at a time on each machine, for tasks that measure time.
        """
        distinct = {task.key: task for task in tasks}
        self.state.expect(distinct.values())
        missing = {key: task for key, task in distinct.items() if not self.is_over(task)}
        self.state.forget(missing)  # they run again: how they ended before no longer holds
        for key in missing:
            self._read.pop(key, None)
            self.storage.delete(f"objects/{key}")  # or a damaged artefact would be taken for the new result's
        self.watch.waiting(list(missing.values()), len(distinct) - len(missing))
        if not missing:
            return
        with closing(self.engine.run(missing.values(), self.url, self._started, self.watch.doing, alone=alone)) as ends:
            for ended in ends:
                self.state.finish(ended)
                self.watch.ended(missing[ended.key], ended)

    def is_over(self, task: Task) -> bool:
        """Whether the task needs no run: its result is there and whole, or it failed by itself and would fail again.

        Example: a task whose model was not valid is over; one that a full disk blocked is not, nor one that was stopped
        at a memory limit which is larger now. `zoo retry` forgets failures, so that their tasks run again.
        """
        known = self.state.known(task.key)
        if self.is_intact(task.key):
            if known is None or known.status != "done":  # the run was killed before it could
                self.state.finish(Ended(task.key, "done"))
            return True
        return known is not None and known.status not in RUNS_AGAIN and not is_freer(task, known)

    def is_intact(self, key: str) -> bool:
        """Whether the result and every file that it names are there, and unchanged where they are local."""
        result = self.result(key)
        if result is None:
            return False
        for name, sha256 in result.get("files", {}).items():
            file = self.storage.local(f"objects/{key}/{name}")
            if file is None:
                if not self.storage.exists(f"objects/{key}/{name}"):
                    return False
            elif not file.is_file() or self.state.sha256_of(file) != sha256:
                return False
        return True

    def result(self, key: str) -> dict[str, Any] | None:
        """What the task wrote about itself; None when it is not there, or is something else."""
        text = self._read.get(key) or self.storage.read(result_name(key)) or b"null"
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(document, dict) or document.get("key") != key:
            return None
        self._read[key] = text
        return document

    def _started(self, task: Task, worker: str) -> None:
        self.state.begin(task, worker)
        self.ran.add(task.key)
        self.watch.started(task, worker)


def is_freer(task: Task, known: TaskState) -> bool:
    """Whether the task was stopped at a limit that is wider now."""
    limits = {"memory": (known.memory, task.memory), "timeout": (known.timeout, task.timeout)}
    before, now = limits.get(known.status, (None, None))
    return before is not None and (now is None or now > before)
