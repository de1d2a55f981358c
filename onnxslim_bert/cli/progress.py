"""A progress bar on stderr, for people only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from onnxslim_bert.cli.screen import console


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None] | None]:
    """A callback (what is being done, steps done, steps in all); None when stderr is no terminal.

    One bar is shown, that of the last call; each stage keeps the time that it still takes.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as bar:
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
