"""Send KILL, TERM and INT to commands at random moments, and look at what is left; exit 1 when a promise was broken.

    python tools/kill_trial.py --count 60 --seed 1

Promised: no output but a whole one; after TERM and INT no temporary file and no traceback; after KILL at most a folder
of its own beside the output, which the next run removes; an output that was there before, replaced with --force, is the
old one or the new one.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort
from fuzz_models import ROOT, small_data

from onnxslim_bert.cli.screen import echo

MADE = "made.onnx"
OLD = b"what lay there before"
COMMANDS = (
    f"quantize model.onnx --calib calib.tsv --data eval.tsv -o {MADE} --force",
    f"slim model.onnx -p canonicalize?,fuse? --data eval.tsv -o {MADE} --force",
    f"quantize model.onnx --mode dynamic -o {MADE} --force",
    "validate model.onnx model.onnx --data eval.tsv",
    "inspect model.onnx",
)
SIGNALS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


def trial(rng: np.random.Generator, longest_s: float) -> tuple[str, list[str]]:
    """One command, one signal, one moment: the outcome and the promises that it broke."""
    command, number = str(rng.choice(COMMANDS)), signal.Signals(int(rng.choice([int(s) for s in SIGNALS])))
    with tempfile.TemporaryDirectory() as folder:
        work, temporary = Path(folder, "work"), Path(folder, "tmp")
        work.mkdir()
        temporary.mkdir()
        (work / "model.onnx").write_bytes((ROOT / "tests" / "fixtures" / "bert-ts17-sdpa.onnx").read_bytes())
        small_data(work)
        (work / MADE).write_bytes(OLD)
        given = {path.name for path in work.iterdir()}
        arguments = [sys.executable, "-P", "-m", "onnxslim_bert", *command.split()]
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
        process = subprocess.Popen(
            arguments, cwd=work, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        time.sleep(float(rng.uniform(0.15, longest_s)))  # from there on the interpreter runs our code
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        ended = process.returncode
        wrong = []
        if "Traceback" in said:
            wrong.append(f"traceback: {said.strip().splitlines()[-1][:100]}")
        if ended not in (SIGNALS[number], -int(number), 0):
            wrong.append(f"exit code {ended}")
        left = {path.name for path in work.iterdir()} - given
        whole = (work / MADE).read_bytes()
        if whole != OLD:
            wrong += opened(work / MADE)
        strange = left - {"made.json"}
        if number == signal.SIGKILL:
            strange = {name for name in strange if not name.startswith(".")}
            if process.returncode and left:
                again = subprocess.run(arguments, cwd=work, env=variables, capture_output=True, text=True, check=False)
                if again.returncode or list(work.glob(".onnxslim-*")):
                    wrong.append(f"the next run left a folder, or said {again.stderr[-100:]!r}")
        elif list(temporary.iterdir()):
            wrong.append(f"$TMPDIR/{next(temporary.iterdir()).name} stayed")
        if strange:
            wrong.append(f"{min(strange)} stayed")
    state = "the output as it was" if whole == OLD else "a whole new output"
    return f"{number.name}: exit code {ended}, {state}", [f"{command}: {item}" for item in wrong]


def opened(path: Path) -> list[str]:
    """What is wrong with a file that should be a whole model."""
    try:
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        return [f"a partial output: {error}"[:100]]
    return []


@click.command()
@click.option("--count", default=60, help="Commands to interrupt.")
@click.option("--seed", default=1)
@click.option("--longest", default=2.5, help="Seconds after its start by which a command gets its signal.")
def main(count: int, seed: int, longest: float) -> None:
    """Interrupt COUNT commands and print the counts by outcome."""
    rng, outcomes, broken = np.random.default_rng(seed), Counter[str](), 0
    for _ in range(count):
        outcome, wrong = trial(rng, longest)
        outcomes[outcome] += 1
        broken += bool(wrong)
        for item in wrong:
            echo(f"BROKEN {outcome} | {item}")
    for outcome, number in sorted(outcomes.items()):
        echo(f"{number:6} {outcome}")
    echo(f"{count} commands interrupted, seed {seed}, {broken} broke a promise")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
