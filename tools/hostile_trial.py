"""Run commands on damaged models and print what came of it; exit 1 when one is neither right nor refused in one line.

    python tools/hostile_trial.py FOLDER...

A FOLDER with an INDEX.md whose last column is a command and whose first is a folder beside it runs those. In any other
folder every verb runs on each model, and every model is put into a zoo with the next one and a sound one, whose job
must end well: the others are rows. Each run works in a copy.
"""

import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from forked import use_forks
from trial_runs import Limits, Run, copy_of, run, warm, wrongs

from onnxslim_bert.cli.screen import echo

VERBS = (
    "inspect {model}",
    "inspect {model} --json",
    "quantize {model} --calib calib.tsv --data eval.tsv --rows 24 -o made.onnx",
    "quantize {model} --calib calib.tsv --data eval.tsv --rows 24 --format qdq -o made.onnx",
    "quantize {model} --mode dynamic --data eval.tsv -o made.onnx",
    "quantize {model} --mode weight-only -o made.onnx",
    "quantize {model} --mode fp16 --data eval.tsv -o made.onnx",
    "quantize {model} --mode fp32 --target coreml --seq 8 -o made.onnx",
    "slim {model} -p canonicalize?,fuse? -o made.onnx",
    "slim {model} -p canonicalize?,prune-heads --calib calib.tsv --data eval.tsv -o made.onnx",
    "validate {model} {model} --data eval.tsv",
    "bench {model} --seq 4 --rounds 2",
    "explain {model} --target coreml",
    "verify {model}",
    "mobile {model} -o phone",
)
SOUND = Path(__file__).parents[1] / "tests" / "fixtures" / "bert-ts17-sdpa.onnx"
ZOO = ("zoo init . -o listed.toml", "zoo run zoo.toml -o out")
ZOO_FILE = """
[defaults]
calib = "calib.tsv"
[recipes.int8]
mode = "static"
[run]
time = false
study = false
[[models]]
path = "*.onnx"
"""
ZOO_LIMITS = Limits(cpu_s=120, wall_s=180)  # of the jobs on the sound model


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


def zoos(folder: Path) -> list[tuple[str, ...]]:
    """Names of models that share a zoo: each with the next."""
    names = [] if (folder / "INDEX.md").is_file() else sorted(path.name for path in folder.glob("*.onnx"))
    return list(dict.fromkeys(tuple(sorted({name, after})) for name, after in itertools.pairwise([*names, *names[:1]])))


def in_zoo(folder: Path, bad: tuple[str, ...]) -> Iterator[tuple[Run, list[str]]]:
    """Run the zoo's commands on the models `bad` of `folder` and a sound one, and see that its job is done."""
    with copy_of(folder) as work:
        for model in work.glob("*.onnx"):
            if model.name not in bad:
                model.unlink()
        shutil.copy(SOUND, work / "sound.onnx")
        (work / "zoo.toml").write_text(ZOO_FILE)
        for command in ZOO:
            done = run(command.split(), work, ZOO_LIMITS)
            wrong = wrongs(done, ZOO_LIMITS, several=True)
            if "run" in command and not done_jobs(work / "out", "sound"):
                wrong.append("the sound model's job was not done")
            yield done, wrong


def done_jobs(out: Path, model: str) -> list[str]:
    """The files that a run made of `model`."""
    account = out / "run.json"
    rows = json.loads(account.read_text())["rows"] if account.is_file() else []
    return [row["path"] for row in rows if row["model"] == model and (out / row["path"]).is_file()]


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", default="", help="Run the commands that hold this text.")
@click.option("--every", is_flag=True, help="Print what went well, too.")
def main(folders: tuple[Path, ...], only: str, every: bool) -> None:
    """Run the commands of FOLDERS."""
    warm()
    use_forks()
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
        for bad in zoos(folder):
            if only not in f"{folder.name} zoo {' '.join(bad)}":
                continue
            for done, wrong in in_zoo(folder, bad):
                count, failed = count + 1, failed + bool(wrong)
                if wrong or every:
                    echo(row(folder, f"{' '.join(done.arguments)}  with {' and '.join(bad)}", done, wrong))
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
