"""A Dask scheduler and workers on this machine, each a process of its own that a test may kill."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
T = TypeVar("T")


class Cluster:
    """A scheduler, in whose environment the package is not, and workers of one thread each, which join when asked to.

    They have no nanny: one that is killed stays away.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
        (folder / "without").mkdir()
        (folder / "without/onnxslim_bert.py").write_text("raise ImportError('no onnxslim_bert')")
        self.without = {**self.environment, "PYTHONPATH": str(folder / "without")}
        self.workers: list[subprocess.Popen[bytes]] = []
        options = ("--port", "0", "--scheduler-file", "scheduler.json")
        self.scheduler = self._start("dask_scheduler", self.without, *options)
        written = folder / "scheduler.json"
        until(lambda: written.exists() and written.read_text().endswith("}"), "the scheduler is there")
        self.address: str = json.loads(written.read_text())["address"].removeprefix("tcp://")

    def worker(self, *options: str, package: bool = True) -> subprocess.Popen[bytes]:
        """A worker that is about to join. package: whether it can import onnxslim_bert."""
        plain = ("--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--local-directory", "scratch")
        environment = self.environment if package else self.without
        process = self._start("dask_worker", environment, f"tcp://{self.address}", *plain, *options)
        self.workers.append(process)
        return process

    def stop(self) -> None:
        """Kill what is left, and wait for it."""
        for process in (self.scheduler, *self.workers):
            process.kill()
        for process in (self.scheduler, *self.workers):
            process.wait()

    def _start(self, program: str, environment: Mapping[str, str], *options: str) -> subprocess.Popen[bytes]:
        local = ("--host", "127.0.0.1", "--no-dashboard")
        command = [sys.executable, "-P", "-m", f"distributed.cli.{program}", *local, *options]
        with (self.folder / f"{program}-{len(self.workers)}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.folder)


@contextmanager
def cluster(folder: Path, **variables: str) -> Iterator[Cluster]:
    """A cluster without workers; its processes see these environment variables, and the tests' modules."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Cluster(folder, variables)
    try:
        yield made
    finally:
        made.stop()


def until(holds: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """What `holds` gives as soon as that is true; AssertionError when it is not in time."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}"
        time.sleep(0.02)
    return found
