"""Which tasks of a run are still to be run, and the account of those that were."""

import json
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Protocol

from onnxslim_bert.zoo.engines.task import Ended, Engine, Task
from onnxslim_bert.zoo.store.state import RunState, TaskState
from onnxslim_bert.zoo.store.storage import Storage, result_name

UNENDED = ("waiting", "running")
OPEN = (*UNENDED, "done", "blocked")  # of these no result is a result that is missing


class RunListener(Protocol):
    """Who looks on while a run goes on; called from any thread."""

    def waiting(self, tasks: Sequence[Task], cached: int) -> None:
        """These are to be run; `cached` more were found done."""

    def started(self, task: Task, worker: str) -> None:
        """A process begins."""

    def doing(self, task: Task, stage: str, done: int, total: int) -> None:
        """A task says how far it is."""

    def ended(self, task: Task, ended: Ended) -> None:
        """A task came to its end."""


class Conductor:
    """Runs what is missing. ran: the keys of tasks that began this time."""

    def __init__(self, engine: Engine, storage: Storage, url: str, state: RunState, watch: RunListener) -> None:
        self.engine, self.storage, self.url, self.state, self.watch = engine, storage, url, state, watch
        self.ran: set[str] = set()
        self._read: dict[str, bytes] = {}  # results as they were read: an object store takes its time for each

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> None:
        """Bring every task to its end; those that ended before stay as they are, but for what was blocked."""
        distinct = {task.key: task for task in tasks}
        self.state.expect(distinct.values())
        missing = {key: task for key, task in distinct.items() if not self.is_over(task)}
        self.state.forget(missing)  # what was said of them is not true any more
        for key in missing:
            self._read.pop(key, None)
            self.storage.delete(f"objects/{key}")  # of a damaged artefact, the result would be taken for its own
        self.watch.waiting(list(missing.values()), len(distinct) - len(missing))
        if not missing:
            return
        with closing(
            self.engine.run(missing.values(), self.url, self._started, doing=self.watch.doing, alone=alone)
        ) as ends:
            for ended in ends:
                self.state.finish(ended)
                self.watch.ended(missing[ended.key], ended)

    def is_over(self, task: Task) -> bool:
        """Whether the task has its result, or failed and would again: only `zoo retry` asks for that."""
        known = self.state.known(task.key)
        if self.is_intact(task.key):
            if known is None or known.status != "done":  # killed before the account of it, or not seen from here
                self.state.finish(Ended(task.key, "done"))
            return True
        return known is not None and known.status not in OPEN and not is_freer(task, known)

    def is_intact(self, key: str) -> bool:
        """Whether the result is there, with every file that it names, unchanged where that can be seen."""
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
        except ValueError:
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
