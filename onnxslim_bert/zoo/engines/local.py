"""Tasks in processes of this machine."""

import threading
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice

import psutil

from onnxslim_bert.targets.table import CPU, target_named
from onnxslim_bert.zoo.engines.process import run_process, this_worker
from onnxslim_bert.zoo.engines.task import Doing, Ended, Ends, Started, Task

JOB_BYTES = 2 << 30  # a BERT-base in float32 takes up to 1.3 GB


class LocalEngine:
    """Runs up to `jobs` tasks at once; by default `default_jobs()`."""

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = default_jobs() if jobs is None else jobs

    def executes(self, target: str) -> bool:
        """See `Engine`."""
        return target == CPU.name or not target_named(target).absent()

    def run(self, tasks: Iterable[Task], storage: str, started: Started, doing: Doing, *, alone: bool = False) -> Ends:
        """See `Engine`. A task is taken when it can begin; `started` is called by the thread that iterates."""
        stop, queue = threading.Event(), iter(tasks)
        jobs = 1 if alone else self.jobs
        running: set[Future[Ended]] = set()
        with ThreadPoolExecutor(jobs) as threads:
            try:
                while True:
                    for task in islice(queue, jobs - len(running)):
                        started(task, this_worker())
                        running.add(threads.submit(run_process, task, storage, stop, partial(doing, task)))
                    if not running:
                        return
                    ended, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        yield future.result()
            finally:
                stop.set()


def default_jobs() -> int:
    """The number of CPUs that this process may use, or of 2 GiB parts of free memory if that is less; at least 1."""
    from onnxslim_bert.machine import host

    return max(1, min(host().cpus, int(psutil.virtual_memory().available) // JOB_BYTES))
