"""What a Dask worker does with a task: asks to begin, runs its process, and stops it once nobody waits for it."""

import platform
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

from distributed import Event, Semaphore, Status, Worker, get_worker

from onnxslim_bert.errors import SlimError
from onnxslim_bert.machine import version_of, versions
from onnxslim_bert.targets.table import TARGETS
from onnxslim_bert.zoo.engines.process import run_process, this_worker
from onnxslim_bert.zoo.engines.task import Ended, Task

TOPIC = "onnxslim-zoo"  # of the events by which workers ask to begin, and say what a task is doing
LOOK_S = 0.5  # between two looks at whether a task is still wanted


def by_value() -> Callable[..., dict[str, Any]]:
    """`run_on_worker` as a function that is sent as code, not by its name.

    Dask's scheduler unpickles functions that it hands on. Sent as code, this one needs no onnxslim-bert on the
    scheduler's machine; a worker without the package raises ImportError.
    """

    def run(*arguments: Any) -> dict[str, Any]:
        from onnxslim_bert.zoo.engines.dask_worker import run_on_worker

        return run_on_worker(*arguments)

    return run


def run_on_worker(fields: dict[str, Any], storage: str, run: str, alone: bool) -> dict[str, Any]:
    """Run one task on this worker; returns its `Ended` as a dictionary.

    fields: those of the `Task`. storage: the URL where results go. run: the name of the run that the task is part of.
    alone: wait until no other task that is to be alone, of any run, runs on this machine.
    """
    task, worker = Task(**fields), get_worker()
    needed = task.payload.get("versions")
    found = versions(TARGETS[task.target].extra) if needed else {}
    if needed and (skew := differences(needed, {name: found.get(name) or version_of(name) for name in needed})):
        message = f"worker {this_worker()} has {skew}: install the same there and restart it"
        return asdict(Ended(task.key, "blocked", message, exit_code=SlimError.exit_code, worker=this_worker()))
    with stop_when_unwanted(worker) as stop, turn(stop) if alone else nullcontext():
        if not may_begin(worker, {"run": run, "key": task.key, "place": this_worker()}, stop):
            return asdict(Ended(task.key, "crashed", "nobody waits for it", worker=this_worker()))
        return asdict(run_process(task, storage, stop, partial(_say, worker, {"run": run, "key": task.key})))


def _say(worker: Worker, task: dict[str, str], *doing: str | int) -> None:
    worker.log_event(TOPIC, {**task, "doing": doing})


def differences(needed: Mapping[str, str], found: Mapping[str, str]) -> str:
    """How the versions `found` here differ from those needed: "onnx 1.22.0, the run has 1.23.2"; "" if not at all."""
    unlike = [name for name in needed if found.get(name, "absent") != needed[name]]
    return ", ".join(f"{name} {found.get(name, 'absent')}, the run has {needed[name]}" for name in unlike)


@contextmanager
def stop_when_unwanted(worker: Worker) -> Iterator[threading.Event]:
    """An event that is set once nobody waits for the task that calls this.

    Dask cannot stop a thread. When a task was cancelled, or its client is lost, Dask only changes the task's state on
    the worker, and the thread runs on; so the state is looked at every LOOK_S. A worker without its scheduler closes.
    """
    key = worker.get_current_task()
    stop, over = threading.Event(), threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            state = worker.state.tasks.get(key)
            if worker.status in (Status.closing, Status.closed) or state is None or state.state != "executing":
                stop.set()

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield stop
    finally:
        over.set()
        looking.join()


@contextmanager
def turn(stop: threading.Event) -> Iterator[None]:
    """Wait until no other task that is to be alone runs on this machine, and hold the others off in the block.

    It is a lease, which ends by itself when the worker that holds it is killed.
    """
    lease = Semaphore(name=f"{TOPIC}-alone-{platform.node()}")
    while not (held := lease.acquire(timeout=LOOK_S)) and not stop.is_set():
        pass
    try:
        yield
    finally:
        if held:
            lease.release()


def may_begin(worker: Worker, request: dict[str, str], stop: threading.Event) -> bool:
    """Tell the coordinator that a process is about to begin, and wait for its answer; False when `stop` is set first.

    Without the answer, the message could be lost with either side, and a process would run that nobody counted.
    """
    answer = Event(f"{TOPIC}-{uuid.uuid4().hex}")
    worker.log_event(TOPIC, {**request, "answer": answer.name})
    while not (answered := answer.wait(timeout=LOOK_S)) and not stop.is_set():
        pass
    if answered:
        answer.clear()  # or the scheduler keeps it
    return bool(answered)
