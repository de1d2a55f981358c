"""How far long work is, on stderr: a bar on a terminal; elsewhere a line a minute, as for the log of a pipeline."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from onnxslim_bert.cli.screen import console, echo
from onnxslim_bert.progress import Progress
from onnxslim_bert.wording import duration

EVERY = 60.0  # seconds between two lines


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A callback (what is being done, steps done, steps in all).

    One bar is shown, that of the last call; each stage keeps the time that it still takes. Where stderr is no terminal,
    work of less than EVERY seconds prints nothing.
    """
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.progress import Progress as Bar

    with Bar(console=console(stderr=True), transient=True) as bar:
        tasks = {}

        def show(stage: str, done: int, total: int) -> None:
            name = stage.partition(":")[0]  # what follows the colon changes during the stage
            if name not in tasks:
                tasks[name] = bar.add_task(stage, total=total)
            if done < bar.tasks[tasks[name]].completed:
                bar.reset(tasks[name])  # the same once more, as one training after the other
            bar.update(tasks[name], description=stage, completed=done, total=total)
            for other, task in tasks.items():
                bar.update(task, visible=other == name)

        yield show


class Lines:
    """A line on stderr every EVERY seconds: the time so far, the stage, how far it is and the time that it still takes.

    That is told from how fast its share has grown since it, or other work in between, began.
    """

    def __init__(self) -> None:
        self.began = self.said = self._since = time.monotonic()
        self._name, self._first, self._share = "", 0.0, 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now, name, share = time.monotonic(), stage.partition(":")[0], done / total
        if name != self._name or share < self._share:
            self._name, self._since, self._first = name, now, share
        self._share = share
        if now - self.said >= EVERY:
            self.said = now
            gained = share - self._first
            left = f", {duration((now - self._since) * (1 - share) / gained)} left" if gained else ""
            echo(f"{duration(now - self.began)}: {stage}, {share:.0%}{left}", err=True)
