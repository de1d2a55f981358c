"""`onnxslim zoo status`."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxslim_bert.cli.screen import console, echo, echo_json, plain_table

if TYPE_CHECKING:
    from onnxslim_bert.zoo.store.state import Invocation, TaskState


@click.command()
@click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def status(output: Path, as_json: bool) -> None:
    """Say how far the run in OUTPUT is: every task, how it ended, how often its process began, and what it took.

    \b
    onnxslim zoo status out
    onnxslim zoo status out --json

    A run that goes on in another process is not disturbed.
    """
    from onnxslim_bert.proof.documents import report_json
    from onnxslim_bert.zoo.documents import STATE
    from onnxslim_bert.zoo.store.state import RunState

    with RunState(output / STATE, create=False) as state:
        going, tasks = state.going(), state.tasks()
    if going is None:  # who was killed leaves tasks that seem to run
        tasks = [replace(task, status="waiting") if task.status == "running" else task for task in tasks]
    if as_json:
        echo_json(report_json({"going": going, "tasks": tasks}))
    else:
        show(going, tasks)


def show(going: "Invocation | None", tasks: "list[TaskState]") -> None:
    """Print the tasks, how many there are of each status, and who works on them."""
    from onnxslim_bert.wording import si

    table = plain_table("task", "status", "began", "wall", "CPU", "memory", "")
    for task in tasks:
        times = [f"{seconds:.1f} s" if seconds else "" for seconds in (task.seconds, task.cpu_seconds)]
        memory = si(task.peak_bytes, "B") if task.peak_bytes else ""
        table.add_row(f"{task.kind} {task.name}", task.status, str(task.attempts), *times, memory, task.message)
    console().print(table)
    counts = Counter(task.status for task in tasks)
    echo(", ".join(f"{number} {status}" for status, number in counts.most_common()) or "no run has begun here")
    if going:
        echo(f"`{going.what}` goes on in process {going.worker}")
    elif counts["waiting"]:
        echo("nothing goes on here: `onnxslim zoo run` finishes what waits")
    elif counts["blocked"]:
        echo("nothing goes on here: `onnxslim zoo run` tries again what was blocked")
