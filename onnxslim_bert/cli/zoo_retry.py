"""`onnxslim zoo retry`."""

from pathlib import Path

import click

from onnxslim_bert.cli.screen import echo


@click.command()
@click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("names", nargs=-1)
def retry(output: Path, names: tuple[str, ...]) -> None:
    """Forget how tasks of the run in OUTPUT failed, all of them or those whose name holds one of NAMES.

    \b
    onnxslim zoo retry out
    onnxslim zoo retry out minilm "bert int8 cpu"

    The next `onnxslim zoo run` runs them again. What is done stays.
    """
    from onnxslim_bert.errors import DataError
    from onnxslim_bert.zoo.conductor import RUNS_AGAIN
    from onnxslim_bert.zoo.documents import STATE
    from onnxslim_bert.zoo.store.state import RunState

    with RunState(output / STATE, create=False) as state, state.lock("zoo retry"):
        failed = [task for task in state.tasks() if task.status not in RUNS_AGAIN]
        chosen = [task for task in failed if not names or any(name in f"{task.kind} {task.name}" for name in names)]
        if names and not chosen:
            known = ", ".join(f"{task.kind} {task.name}" for task in failed) or "nothing"
            raise DataError(f"no failed task's name holds {' or '.join(names)}; {known} failed")
        state.forget(task.key for task in chosen)
    for task in chosen:
        echo(f"{task.kind} {task.name}: was {task.status}, runs again")
    if not chosen:
        echo("nothing has failed")
