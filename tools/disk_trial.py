"""Run commands on full and read-only disks, and look at what they leave; exit 1 when a promise was broken.

    python tools/disk_trial.py --count 60 --seed 1

Promised: exit code 2 and one line, or a whole result; outputs that were there stay as they were, and nothing temporary
stays. Every other disk is read-only; the others have room for a random part of what the command needs. It is the one
of the outputs or the one of temporary files in turn. Disks are small file systems in memory (mount -t tmpfs), which
root may mount; others get a limit on the size of files for a full disk, and a folder without the right to write.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from trial_cases import LIMITS, Prepared, chosen, prepare, state_of, strangers
from trial_runs import Tally, finish, start, warm, wrongs

DISK = 32 << 20  # bytes of a disk
KINDS = ("a full disk of outputs", "a read-only folder of outputs", "a full $TMPDIR", "a read-only $TMPDIR")


def trial(prepared: Prepared, kind: str, free: int) -> tuple[str, list[str]]:
    """One command where `free` bytes are left: the outcome and the promises that it broke."""
    case, limits = prepared.case, LIMITS
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        work, other = Path(folder, "work"), Path(folder, "other")
        for place in (work, other):
            place.mkdir()
        hit = other if "TMPDIR" in kind else work
        mounted = os.geteuid() == 0 and stack.enter_context(disk(hit))
        temporary = other / "tmp"
        temporary.mkdir()
        shutil.copytree(prepared.folder, work, dirs_exist_ok=True)
        if "full" in kind and mounted:
            fill(hit, free)
        elif "full" in kind:
            limits = replace(LIMITS, file_bytes=free)
        elif mounted:
            subprocess.run(["mount", "-o", "remount,ro", str(hit)], check=True)
        else:
            shut = work if hit is work else temporary
            shut.chmod(0o500)
            stack.callback(shut.chmod, 0o700)
        ended = finish(start(case.command.split(), work, limits, temporary=temporary), limits)
        wrong = wrongs(ended, limits, own=case.keeps)
        state = "" if case.keeps == "out" else state_of(work, prepared)
        expected = {0: ("new", ""), 2: ("old", "")}.get(ended.code, ("old", ""))
        wrong += [] if state in expected else [f"exit code {ended.code}, and the outputs are {state}"]
        wrong += [f"{name} stayed" for name in strangers(work, prepared) if name != FILLER]
    return f"{kind}: exit code {ended.code}", [f"{item} ({ended.err[-150:].strip()})" for item in wrong]


FILLER = "filler"


@contextlib.contextmanager
def disk(place: Path) -> Iterator[bool]:
    """Mount a small disk at the folder while the block runs; whether that could be done."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, free: int) -> None:
    """Leave `free` bytes on the disk."""
    state = os.statvfs(place)
    room = state.f_bavail * state.f_frsize
    (place / FILLER).write_bytes(bytes(max(room - free, 0)))


@click.command()
@click.option("--count", default=60, help="Commands.")
@click.option("--seed", default=1)
@click.option("--only", help="Commands that begin so, like 'zoo run'.")
@click.option("--without", help="No commands that begin so, like 'slim model.onnx --target' (a search takes long).")
def main(count: int, seed: int, only: str | None, without: str | None) -> None:
    """Run COUNT commands on such disks and print the counts by outcome."""
    warm()
    rng, tally = np.random.default_rng(seed), Tally()
    cases = [case for case in chosen(only, without) if case.outputs]
    with tempfile.TemporaryDirectory() as folder:
        prepared = []
        for number, case in enumerate(cases):
            Path(folder, str(number)).mkdir()
            prepared.append(prepare(case, Path(folder, str(number))))
        for number in range(count):
            one, kind = prepared[int(rng.integers(len(prepared)))], KINDS[number % len(KINDS)]
            needed = 3 * sum(map(len, one.after.values()))
            outcome, wrong = trial(one, kind, int(rng.uniform(0, needed)))
            tally.add(outcome, wrong, one.case.command)
    tally.end(f"commands on full and read-only disks, seed {seed}")


if __name__ == "__main__":
    main()
