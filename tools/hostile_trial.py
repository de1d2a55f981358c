"""Run commands on damaged models and print what came of it; exit 1 when one is neither right nor refused in one line.

    python tools/hostile_trial.py FOLDER...

A FOLDER with an INDEX.md whose last column is a command and whose first is a folder beside it runs those; any other
folder runs every verb on each model in it. Each run works in a copy.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from trial_runs import Limits, Run, copy_of, run, warm, wrongs

from onnxslim_bert.cli.screen import echo

VERBS = (
    "inspect {model}",
    "inspect {model} --json",
    "quantize {model} --calib calib.tsv --data eval.tsv --rows 24 -o made.onnx",
    "quantize {model} --mode dynamic --data eval.tsv -o made.onnx",
    "quantize {model} --mode weight-only -o made.onnx",
    "slim {model} -p canonicalize?,fuse? -o made.onnx",
    "slim {model} -p canonicalize?,prune-heads --calib calib.tsv --data eval.tsv -o made.onnx",
    "validate {model} {model} --data eval.tsv",
    "bench {model} --seq 4 --rounds 2",
    "explain {model} --target coreml",
    "verify {model}",
    "mobile {model} -o phone",
)


def cases(folder: Path) -> Iterator[tuple[Path, str]]:
    """The folders to work in and their commands."""
    index = folder / "INDEX.md"
    if index.is_file():
        rows = [
            [cell.strip() for cell in line.strip().strip("|").split("|")] for line in index.read_text().splitlines()
        ]
        yield from ((folder / row[0], row[-1]) for row in rows if len(row) > 1 and (folder / row[0]).is_dir())
        return
    for model in sorted(folder.glob("*.onnx")):
        yield from ((folder, verb.format(model=model.name)) for verb in VERBS)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", default="", help="Run the commands that hold this text.")
@click.option("--every", is_flag=True, help="Print what went well, too.")
def main(folders: tuple[Path, ...], only: str, every: bool) -> None:
    """Run the commands of FOLDERS."""
    warm()
    limits, failed, count = Limits(cpu_s=30, wall_s=60), 0, 0
    for folder in folders:
        for place, command in cases(folder):
            if only not in f"{place.name} {command}":
                continue
            with copy_of(place) as work:
                done = run(command.split(), work, limits)
            wrong, count = wrongs(done, limits), count + 1
            failed += bool(wrong)
            if wrong or every:
                echo(row(place, command, done, wrong))
    echo(f"{count} runs, {failed} wrong")
    sys.exit(1 if failed else 0)


def row(place: Path, command: str, done: Run, wrong: list[str]) -> str:
    """One line of the table."""
    said = (done.err.strip().splitlines() or [""])[-1][:150]
    cost = f"{done.cpu_s:5.1f} s {done.resident / 1e6:5.0f} MB"
    return (
        f"{'WRONG ' + '; '.join(wrong) if wrong else 'well'} | {place.name} | {command} | {done.code} | {cost} | {said}"
    )


if __name__ == "__main__":
    main()
