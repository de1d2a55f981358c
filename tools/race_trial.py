"""Let things happen while commands run, and look at what comes of it; exit 1 when a promise was broken.

    python tools/race_trial.py --count 60 --seed 1

In turn, at random moments: a second command writes the same output (promised: one ends with 0 and its result is whole,
the other with 2; with --force both may end with 0); a file, a folder or a link to nothing appears under the output's
name (it stays, and the command ends with 2, unless the output was there first); the source is replaced by rename,
rewritten in place or cut short (the output is that of one of the two sources, byte by byte, or there is none).
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from trial_cases import CASES, LIMITS, MODEL, Case, Prepared, outputs_in, prepare, state_of, strangers
from trial_runs import Run, Tally, finish, start, warm, wrongs

from onnxslim_bert.model.onnx_model import Model

WRITERS = tuple(case for case in CASES if case.outputs and not case.keeps)
OTHER_SOURCE = "other.onnx"
SOURCE = "model.onnx"
Happening = Callable[[Path], bool]


def two_writers(prepared: Prepared, work: Path, moment: float) -> tuple[str, list[str]]:
    """The same command again, while it runs."""
    arguments = prepared.case.command.split()
    first = start(arguments, work, LIMITS)
    time.sleep(moment)
    second = start(arguments, work, LIMITS)
    ends = [finish(second, LIMITS), finish(first, LIMITS)]
    codes = sorted(ended.code for ended in ends)
    permitted = [[0, 2], *([[0, 0]] if "--force" in arguments else [])]
    wrong = [] if codes in permitted else [f"exit codes {codes}"]
    wrong += [item for ended in ends for item in _of_output(ended)]
    wrong += [] if state_of(work, prepared) == "new" else [f"the outputs are {state_of(work, prepared)}"]
    return f"two writers: exit codes {codes}", wrong


def appearing(prepared: Prepared, work: Path, moment: float, kind: str) -> tuple[str, list[str]]:
    """Something gets the name of the last output before the command gives it."""
    name = work / prepared.case.outputs[0]
    started = start(prepared.case.command.split(), work, LIMITS)
    time.sleep(moment)
    try:
        if kind == "file":
            os.close(os.open(name, os.O_CREAT | os.O_EXCL))
        elif kind == "folder":
            name.mkdir()
            (name / "mine").touch()
        else:
            name.symlink_to("nowhere")
    except FileExistsError:
        kind = "too late"
    ended = finish(started, LIMITS)
    wrong = _of_output(ended)
    if kind == "too late":
        wrong += [] if not ended.code and state_of(work, prepared) == "new" else [f"too late, and {ended.code}"]
    else:
        stays = {"file": name.is_file() and not name.stat().st_size, "folder": (name / "mine").exists()}
        wrong += [] if ended.code == 2 and stays.get(kind, name.is_symlink()) else [f"{kind}: exit code {ended.code}"]
        others = [one for one in prepared.case.outputs[1:] if os.path.lexists(work / one)]
        wrong += [f"{one} without {name.name}" for one in others]
    return f"a {kind} appears: exit code {ended.code}", wrong


def changing(prepared: Prepared, other: Prepared, work: Path, moment: float, kind: str) -> tuple[str, list[str]]:
    """The source becomes another one, or half of it."""
    source, data = work / SOURCE, (other.folder / SOURCE).read_bytes()
    started = start(prepared.case.command.split(), work, LIMITS)
    time.sleep(moment)
    if kind == "replaced":
        (work / OTHER_SOURCE).write_bytes(data)
        os.replace(work / OTHER_SOURCE, source)
    elif kind == "rewritten":
        with source.open("r+b") as file:
            file.write(data)
    else:
        os.truncate(source, len(data) // 3)
    ended = finish(started, LIMITS)
    wrong = _of_output(replace(ended, new=tuple(name for name in ended.new if name != SOURCE)))
    states = [state_of(work, one) for one in (prepared, other)]
    if "new" not in states and (ended.code != 2 or outputs_in(work, prepared.case) != prepared.before):
        wrong.append(f"exit code {ended.code}, and the outputs are {states[0]}")
    return f"the source is {kind}: exit code {ended.code}", wrong


def _of_output(ended: Run) -> list[str]:
    """What is wrong with how a run ended; names of outputs may be the other's."""
    kept = replace(ended, new=tuple(name for name in ended.new if name.startswith("$TMPDIR")))
    return [f"{item} ({ended.err[-150:].strip()})" for item in wrongs(kept, LIMITS)]


def other_source(folder: Path) -> None:
    """Change the weights of the model in the folder, and nothing of its size."""
    model = Model.load(folder / SOURCE)
    for name, constant in model.constants().items():
        if constant.values.dtype == np.float32 and constant.values.ndim == 2:
            model.replace(name, constant.values * np.float32(1.25))
    model.save(folder / SOURCE, overwrite=True)


@click.command()
@click.option("--count", default=60, help="Races.")
@click.option("--seed", default=1)
@click.option("--only", help="Outputs of commands that begin so, like 'device bundle'; sources change in any case.")
def main(count: int, seed: int, only: str | None) -> None:
    """Run COUNT races and print the counts by outcome."""
    warm()
    rng, tally = np.random.default_rng(seed), Tally()
    writers = [case for case in WRITERS if case.command.startswith(only or "")]
    fresh = [case for case in writers if not case.old]
    changed = Case("quantize model.onnx --mode dynamic -o made.onnx", MODEL)
    with tempfile.TemporaryDirectory() as folder:
        prepared = {case: prepare(case, _new(Path(folder))) for case in writers}
        sources = prepare(changed, _new(Path(folder)), _saved), prepare(changed, _new(Path(folder)), other_source)
        for number in range(count):
            with tempfile.TemporaryDirectory() as place:
                kind = number % 3
                case = writers[int(rng.integers(len(writers)))] if not kind else fresh[int(rng.integers(len(fresh)))]
                one = sources[0] if kind == 2 else prepared[case]
                work = Path(shutil.copytree(one.folder, Path(place, "work")))
                moment = float(rng.uniform(0, one.seconds))
                which = int(rng.integers(3))
                if kind == 0:
                    outcome, wrong = two_writers(one, work, moment)
                elif kind == 1:
                    outcome, wrong = appearing(one, work, moment, ("file", "folder", "link to nothing")[which])
                else:
                    outcome, wrong = changing(*sources, work, moment, ("replaced", "rewritten", "cut short")[which])
                wrong += [f"{name} stayed" for name in strangers(work, one)]
            tally.add(outcome, wrong, one.case.command)
    tally.end(f"races, seed {seed}")


def _new(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def _saved(folder: Path) -> None:
    """The source as `other_source` writes its own, so that both are of one size."""
    Model.load(folder / SOURCE).save(folder / SOURCE, overwrite=True)


if __name__ == "__main__":
    main()
