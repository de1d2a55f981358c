"""One Python program as a process of its own, and what it took from start to end.

    python measured.py REPORT MODULE ARGUMENT...

runs MODULE as `python -m MODULE ARGUMENT...` does and writes a `Usage` to REPORT as JSON.
"""

import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.proof.bench_child import peak_bytes


@dataclass(frozen=True)
class Usage:
    """cpu_s: user and system time, child processes included. peak_bytes: most resident memory."""

    cpu_s: float
    peak_bytes: int


class ProgramError(Exception):
    """A program ended with an error; the message is its last line."""


def measure(module: str, arguments: Sequence[str]) -> Usage:
    """Run the program, whose output is dropped. Raises ProgramError."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "usage.json"
        done = subprocess.run(
            [sys.executable, __file__, str(report), module, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                "TMPDIR": scratch,  # what the program leaves behind goes with it
            },
            check=False,
        )
        if done.returncode:
            raise ProgramError((done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1])
        return Usage(**json.loads(report.read_text()))


def main() -> None:
    report, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        Path(report).write_text(json.dumps({"cpu_s": sum(os.times()[:4]), "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
