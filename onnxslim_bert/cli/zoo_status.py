"""`onnxslim zoo status`."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from onnxslim_bert.zoo.store.state import TaskState


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
    from onnxslim_bert.report import report_json
    from onnxslim_bert.zoo.documents import STATE
    from onnxslim_bert.zoo.store.state import State

    with State(output / STATE, create=False) as state:
        tasks = state.tasks()
    if as_json:
        click.echo(json.dumps(report_json({"tasks": tasks}), indent=2, allow_nan=False))
    else:
        show(tasks)


def show(tasks: "list[TaskState]") -> None:
    """Print the tasks and how many there are of each kind."""
    from onnxslim_bert.cli.tables import console, plain_table
    from onnxslim_bert.inspection.wording import si

    table = plain_table("task", "status", "began", "wall", "CPU", "memory", "")
    for task in tasks:
        times = [f"{seconds:.1f} s" if seconds else "" for seconds in (task.seconds, task.cpu_seconds)]
        memory = si(task.peak_bytes, "B") if task.peak_bytes else ""
        table.add_row(f"{task.kind} {task.name}", task.status, str(task.attempts), *times, memory, task.message)
    console().print(table)
    counts = Counter(task.status for task in tasks)
    click.echo(", ".join(f"{number} {status}" for status, number in counts.most_common()) or "no run has begun here")
