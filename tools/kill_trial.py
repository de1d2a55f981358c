"""Send KILL, TERM and INT to commands at random moments, and look at what is left; exit 1 when a promise was broken.

    python tools/kill_trial.py --count 60 --seed 1

Promised: the outputs are the old ones or the new ones, all of them; after TERM and INT no temporary file and no
traceback; after KILL at most folders of our own, which the next run removes, after it has taken back what was half
moved. The same command, run again, ends well; a search and a zoo go on. A share of the commands is a process of its
own, so that a signal may come while libraries are imported; the others are forks that have imported all.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from trial_cases import LIMITS, ROOT, SEARCH, Prepared, chosen, prepare, state_of, strangers
from trial_runs import Tally, finish, run, start, warm

from onnxslim_bert.graph.claims import PREFIX, remove_dead

SIGNALS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
FRESH_S = 0.15  # from there on, a new interpreter runs our code


def trial(prepared: Prepared, number: signal.Signals, moment: float, *, fresh: bool) -> tuple[str, list[str]]:
    """One command, one signal, at `moment` seconds: the outcome and the promises that it broke."""
    with tempfile.TemporaryDirectory() as folder:
        work, temporary = Path(shutil.copytree(prepared.folder, Path(folder, "work"))), Path(folder, "tmp")
        temporary.mkdir()
        arguments = prepared.case.command.split()
        code, said = (_fresh if fresh else _forked)(arguments, work, temporary, number, moment)
        wrong = []
        if "Traceback" in said:
            wrong.append(f"traceback: {said.strip().splitlines()[-1][:100]}")
        if code not in (SIGNALS[number], -int(number), 0):
            wrong.append(f"exit code {code}: {said[-100:]}")
        if number == signal.SIGKILL:
            remove_dead(work)
            remove_dead(temporary)
        left = [*strangers(work, prepared), *(f"$TMPDIR/{path.name}" for path in temporary.iterdir())]
        left += [str(path) for path in work.rglob(f"{PREFIX}*") if number != signal.SIGKILL]
        wrong += [f"{name} stayed" for name in left]
        state = "" if prepared.case.keeps == "out" else state_of(work, prepared)
        wrong += [state] if state.startswith("half") else []
        wrong += _again(prepared, work, state)
    return (
        f"{number.name}: exit code {code}, {'the outputs as they were' if state == 'old' else state or 'a zoo'}",
        wrong,
    )


def _forked(
    arguments: list[str], work: Path, temporary: Path, number: signal.Signals, moment: float
) -> tuple[int, str]:
    started = start(arguments, work, LIMITS, temporary=temporary)
    time.sleep(moment)
    os.kill(started.child, number)
    ended = finish(started, LIMITS)
    return ended.code, ended.err


def _fresh(arguments: list[str], work: Path, temporary: Path, number: signal.Signals, moment: float) -> tuple[int, str]:
    command = [sys.executable, "-P", "-m", "onnxslim_bert", *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, cwd=work, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(FRESH_S + moment)
    process.send_signal(number)
    _, said = process.communicate(timeout=LIMITS.wall_s)
    return process.returncode, said.decode(errors="replace")


def _again(prepared: Prepared, work: Path, state: str) -> list[str]:
    """What is wrong after the same command has run again, to its end."""
    if state == "new" and "--force" not in prepared.case.command:
        return []
    again = run(prepared.case.command.split(), work, LIMITS)
    wrong = [f"run again, it ends with {again.code}: {again.err[-100:]}"] if again.code else []
    if not again.code and prepared.case.outputs and (ended := state_of(work, prepared)) != "new":
        wrong.append(f"run again, the outputs are {ended}")
    kept = [SEARCH] if (work / SEARCH).exists() else []
    return wrong + [f"{name} stayed after another run" for name in [*strangers(work, prepared), *kept]]


@click.command()
@click.option("--count", default=60, help="Commands to interrupt.")
@click.option("--seed", default=1)
@click.option("--only", help="Commands that begin so, like 'zoo run'.")
@click.option("--without", help="No commands that begin so, like 'slim model.onnx --target' (a search takes long).")
@click.option("--fresh", default=0.25, help="The share of commands that are processes of their own.")
def main(count: int, seed: int, only: str | None, without: str | None, fresh: float) -> None:
    """Interrupt COUNT commands and print the counts by outcome."""
    warm()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell's `&`, and so by all it starts
    rng, tally = np.random.default_rng(seed), Tally()
    cases = chosen(only, without)
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, str(number)) for number in range(len(cases))]
        for place in places:
            place.mkdir()
        prepared = [prepare(case, place) for case, place in zip(cases, places, strict=True)]
        for done in range(count):
            one, number = prepared[done % len(prepared)], list(SIGNALS)[int(rng.integers(len(SIGNALS)))]
            outcome, wrong = trial(one, number, float(rng.uniform(0, one.seconds)), fresh=bool(rng.random() < fresh))
            tally.add(outcome, wrong, one.case.command)
    tally.end(f"commands interrupted, seed {seed}")


if __name__ == "__main__":
    main()
