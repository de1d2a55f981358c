"""`onnxslim zoo gc`."""

from pathlib import Path

import click

from onnxslim_bert.cli.screen import echo


@click.command()
@click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--cache-age", type=click.FloatRange(min=0), default=30, show_default=True, help="Days; see below.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def gc(output: Path, cache_age: float, dry_run: bool) -> None:
    """Delete what the last run in OUTPUT does not need: artefacts of earlier recipes and models, and leftovers.

    \b
    onnxslim zoo gc out --dry-run
    onnxslim zoo gc out

    Cached statistics and answers go when they are older than --cache-age: a recipe that is new may ask for them. While
    the last run is interrupted, what the run before it needs stays, too. In a --storage that several runs share, what
    only the others need goes: give each its own.
    """
    from onnxslim_bert.wording import si
    from onnxslim_bert.zoo.documents import STATE, load_run
    from onnxslim_bert.zoo.store.collect_garbage import DAY, delete, unreferenced
    from onnxslim_bert.zoo.store.state import RunState
    from onnxslim_bert.zoo.store.storage import Storage

    with RunState(output / STATE, create=False) as state, state.lock("zoo gc"):
        run = load_run(output)
        storage = Storage(run.storage or str(output))
        keep = state.needed() | {row.key for row in run.rows}
        found = unreferenced(storage, keep, cache_age=cache_age * DAY)
        if not dry_run:
            delete(storage, found)
    for item in found:
        echo(f"{item.name}: {si(item.nbytes, 'B')}, {item.reason}")
    freed = si(sum(item.nbytes for item in found), "B")
    echo(f"{len(found)} things, {freed} {'would be freed' if dry_run else 'freed'}")
