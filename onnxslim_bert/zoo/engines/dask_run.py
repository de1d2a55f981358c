"""One run of tasks on a Dask cluster: it submits them, counts the processes that begin, and tries lost ones again."""

import math
import queue
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from distributed import CancelledError, Client, Event, Future, KilledWorker

from onnxslim_bert.errors import OutputError, ProviderError, SlimError, one_line
from onnxslim_bert.zoo.engines.dask_shortage import Shortage
from onnxslim_bert.zoo.engines.dask_worker import TOPIC, by_value
from onnxslim_bert.zoo.engines.task import Doing, Ended, Started, Task
from onnxslim_bert.zoo.store.storage import Storage, result_name

LOOK_S = 5.0  # between two looks at which workers there are
GIVEN_UP = 3  # times that Dask gives up a task until it is over here, too


def is_over(begun: int, given_up: int, allowed: int) -> bool:
    """Whether a task whose workers died is given up: after more than `allowed` processes of it, or GIVEN_UP losses.

    Dask gives up a task when more than `allowed` workers died that held it, even if none had begun it. So that alone
    does not end a task here. Example: allowed=3: a task whose fourth process began and died is over; one that Dask gave
    up while it waited on dying workers is submitted again, twice.

    begun: processes of the task that began. given_up: times that Dask gave it up.
    """
    return begun > allowed or given_up >= GIVEN_UP


@dataclass
class _Waiting:
    """A task that has not ended. begun: processes of it so far. given_up: how often Dask gave it up."""

    task: Task
    future: Future
    begun: int = 0
    given_up: int = 0


@dataclass(frozen=True)
class _Begins:
    """A worker asks whether the process of a task may begin, and waits for the `Event` named `answer`."""

    key: str
    worker: str
    answer: str


@dataclass(frozen=True)
class _Says:
    """A task says what it is doing: the stage, steps done, steps in all."""

    key: str
    doing: tuple[str, int, int]


@dataclass(frozen=True)
class _Over:
    """A future of the cluster has ended, with a result, an error or a cancellation."""

    key: str
    outcome: Ended | Exception


class DaskRun:
    """The tasks of one call of `DaskEngine.run`.

    On the cluster a task's key has a name of this run in front. Under the bare content address, Dask would take it for
    the same task of another run, and return what came of that: a failure that this run tries again, or a process that
    this run does not count. Two runs that make the same thing at once write the same bytes, each atomically.
    """

    def __init__(self, client: Client, storage: str, alone: bool) -> None:
        self.client, self.storage, self.alone = client, storage, alone
        self.name = f"{TOPIC}-{uuid.uuid4().hex}"
        self.waiting: dict[str, _Waiting] = {}
        self.news: queue.SimpleQueue[_Begins | _Says | _Over] = queue.SimpleQueue()

    def ends(self, tasks: Iterable[Task], started: Started, doing: Doing, shortage: Shortage) -> Iterator[Ended]:
        """Submit the tasks and yield each as it ends; left early, cancel the others."""
        self.client.subscribe_topic(TOPIC, self._heard)
        looked = -math.inf
        try:
            for task in tasks:
                self.waiting[task.key] = _Waiting(task, self._submit(task, 0))
            while self.waiting:
                match self._next():
                    case _Begins() as request:
                        self._begin(request, started)
                    case _Says(key, said) if waiting := self.waiting.get(key):
                        doing(waiting.task, *said)
                    case _Over() as over if ended := self._ended(over):
                        yield ended
                if time.monotonic() - looked >= LOOK_S:
                    looked = time.monotonic()
                    yield from self._given_up(shortage, looked)
        finally:
            if self.waiting:
                self.client.cancel([waiting.future for waiting in self.waiting.values()], force=True)

    def _next(self) -> _Begins | _Says | _Over | None:
        with suppress(queue.Empty):
            return self.news.get(timeout=LOOK_S)
        return None

    def _submit(self, task: Task, turn: int) -> Future:
        future = self.client.submit(
            by_value(),
            asdict(task),
            self.storage,
            self.name,
            self.alone,
            key=(self.name, task.key, turn),
            resources=None if task.target == "cpu" else {task.target: 1},
            pure=False,
        )
        future.add_done_callback(partial(self._done, task.key))
        return future

    def _heard(self, event: tuple[float, dict[str, Any]]) -> None:
        _, request = event
        if request["run"] != self.name:
            return
        if "doing" in request:
            self.news.put(_Says(request["key"], tuple(request["doing"])))
        else:
            self.news.put(_Begins(request["key"], request["place"], request["answer"]))

    def _done(self, key: str, future: Future) -> None:
        # fetched in Dask's thread: where the worker was lost with the result, Dask runs the task again, which asks us
        try:
            outcome: Ended | Exception = Ended(**future.result())
        except Exception as error:
            outcome = error
        self.news.put(_Over(key, outcome))

    def _begin(self, request: _Begins, started: Started) -> None:
        if waiting := self.waiting.get(request.key):
            waiting.begun += 1
            started(waiting.task, request.worker)
            Event(request.answer, client=self.client).set()

    def _ended(self, over: _Over) -> Ended | None:
        """How a task ended; None when it is tried again."""
        waiting = self.waiting.pop(over.key, None)
        if waiting is None:
            return None
        match over.outcome:
            case Ended() as ended:
                return self._found(ended)
            case KilledWorker(allowed_failures=allowed):
                waiting.given_up += 1
                if is_over(waiting.begun, waiting.given_up, allowed):
                    return Ended(over.key, "crashed", f"worker lost {waiting.begun} times")
                waiting.future = self._submit(waiting.task, waiting.given_up)
                self.waiting[over.key] = waiting
                return None
            case CancelledError() as error:
                raise SlimError(f"the Dask scheduler was lost: run again to go on ({one_line(error)})")
            case SlimError() as error:
                return Ended(over.key, "blocked", one_line(error), exit_code=error.exit_code)
            case ImportError() as error:
                message = f"a worker lacks what the run needs ({one_line(error)}): install onnxslim-bert there"
                return Ended(over.key, "blocked", message, exit_code=SlimError.exit_code)
            case error:
                return Ended(over.key, "crashed", one_line(error))

    def _found(self, ended: Ended) -> Ended:
        """`ended`, or "blocked" when the worker says done and its result is not in the storage as seen from here."""
        name = result_name(ended.key)
        if ended.status != "done" or Storage(self.storage).exists(name):
            return ended
        message = (
            f"{ended.worker} wrote {name} to {self.storage}, and it is not there from here: needed a folder that all "
            "machines share, or object storage (--storage s3://...)"
        )
        return replace(ended, status="blocked", message=message, exit_code=OutputError.exit_code)

    def _given_up(self, shortage: Shortage, now: float) -> Iterator[Ended]:
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        hopeless = shortage.given_up({waiting.task.target for waiting in self.waiting.values()}, workers, now)
        for waiting in [waiting for waiting in self.waiting.values() if waiting.task.target in hopeless]:
            del self.waiting[waiting.task.key]
            waiting.future.cancel()
            message = hopeless[waiting.task.target]
            yield Ended(waiting.task.key, "blocked", message, exit_code=ProviderError.exit_code)
