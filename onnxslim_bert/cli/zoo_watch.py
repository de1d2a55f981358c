"""Show the progress of a zoo run on stderr: bars on a terminal, elsewhere a line for each task that ends."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnxslim_bert.cli.screen import console, echo
from onnxslim_bert.zoo.engines.task import Ended, Task

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from onnxslim_bert.zoo.conductor import RunListener


DOING = {"make": "making", "study": "studying", "time": "timing"}


@contextmanager
def watching() -> Iterator["RunListener"]:
    """The listener that shows a run on this stderr: bars on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        yield Bars(progress)


class Lines:
    """A line on stderr for each task that ended."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def waiting(self, tasks: Sequence[Task], cached: int) -> None:
        self.total, self.done = self.total + len(tasks) + cached, self.done + cached

    def started(self, task: Task, worker: str) -> None:
        pass

    def doing(self, task: Task, stage: str, done: int, total: int) -> None:
        pass

    def ended(self, task: Task, ended: Ended) -> None:
        self.done += 1
        echo(f"{self.done}/{self.total} {outcome(task, ended)}", err=True)


class Bars:
    """One bar for the whole, and one for each task that runs."""

    def __init__(self, progress: "Progress") -> None:
        self.progress = progress
        self.whole = progress.add_task("zoo", total=0)
        self.total = 0
        self.running: dict[str, TaskID] = {}
        self.lock = threading.Lock()

    def waiting(self, tasks: Sequence[Task], cached: int) -> None:
        self.total += len(tasks) + cached
        self.progress.update(self.whole, total=self.total, advance=cached)

    def started(self, task: Task, worker: str) -> None:
        with self.lock:
            bar = self.running.pop(task.key, None)
            if bar is not None:  # its worker was lost
                self.progress.remove_task(bar)
            self.running[task.key] = self.progress.add_task(
                f"{DOING.get(task.kind, task.kind)} {task.name}", total=None
            )

    def doing(self, task: Task, stage: str, done: int, total: int) -> None:
        with self.lock:
            if (bar := self.running.get(task.key)) is not None:
                what = f"{DOING.get(task.kind, task.kind)} {task.name}: {stage}"
                self.progress.update(bar, description=what, completed=done, total=total)

    def ended(self, task: Task, ended: Ended) -> None:
        with self.lock:
            bar = self.running.pop(task.key, None)
        if bar is not None:
            self.progress.remove_task(bar)
        self.progress.update(self.whole, advance=1)
        if ended.status != "done":
            self.progress.console.print(outcome(task, ended))


def outcome(task: Task, ended: Ended) -> str:
    """How a task ended, in one line."""
    what = f"{DOING.get(task.kind, task.kind)} {task.name}"
    if ended.status == "done":
        return f"{what}: {ended.seconds:.1f} s"
    return f"{what}: {ended.status}: {ended.message}"
