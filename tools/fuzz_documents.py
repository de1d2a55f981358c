"""Damage the documents that commands read, at random, and count what comes of it; exit 1 when a promise was broken.

    python tools/fuzz_documents.py --count 1000 --seed 1

The promises are those of docs/reliability.md: no traceback, no exit code 1, no signal, 30 s of CPU and 1.5 GB at most,
one line of error, nothing left behind, and exit code 0 only where the document can be read. Documents are data,
tokenizers, configurations, zoo files, what runs and jobs left, bundles, arguments and variables of the environment
(document_cases.py). Mutant I of seed S is the same everywhere: `--only I` runs it alone, `--keep FOLDER` keeps those
that broke a promise.
"""

import multiprocessing
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from document_cases import CASES, Case, note_in, prepare, with_note
from document_damage import WORDS, altered, damaged, is_none
from forked import use_forks
from trial_runs import GB, Limits, Run, run, warm, wrongs

from onnxslim_bert.cli.screen import echo, echo_text

LIMITS = Limits(cpu_s=30, wall_s=90, resident=GB + GB // 2)
WHOLE = -1  # the seed that damages nothing
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Tried:
    """A mutant, what was run on it, and which promises were broken."""

    number: int
    case: Case
    damage: str
    done: Run
    wrong: tuple[str, ...]


def attempt(given: tuple[int, int, Path, Path | None]) -> Tried:
    """Damage a document in a copy of the folder `base`, run the command that reads it, and look at what came of it."""
    seed, number, base, keep = given
    rng = np.random.default_rng([abs(seed), number])
    is_whole = seed == WHOLE
    case = CASES[number if is_whole else int(rng.integers(len(CASES)))]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(shutil.copytree(base, Path(temporary) / "work"))
        arguments, variables = case.command.split(), dict(OFFLINE)
        is_gone, damage = False, case.place
        if is_whole:
            arguments = [word.replace("{}", case.place) for word in arguments]
        elif case.kind == "argument":
            damage = altered(case.place, rng)
            arguments = [damage if word == "{}" else word.replace("{}", damage) for word in arguments]
        elif case.kind == "variable":
            damage = str(rng.choice([*WORDS, "/dev/zero", "x" * 5000]))
            variables[case.place] = damage
        else:
            damage, is_gone = _damage(case, work, rng)
        done = run(arguments, work, LIMITS, variables)
        wrong = wrongs(done, LIMITS, own=case.leaves)
        if is_whole and done.code and case.kind != "variable":
            wrong.append(f"exit code {done.code} without damage")
        if is_gone and case.needed and not done.code:
            wrong.append("exit code 0 for what is no document")
        if wrong and keep:
            shutil.copytree(work, keep / f"{seed}-{number}", dirs_exist_ok=True, symlinks=True)
    return Tried(number, case, damage, done, tuple(wrong))


def _damage(case: Case, work: Path, rng: np.random.Generator) -> tuple[str, bool]:
    """Damage the file, or the metadata entry, of a case; whether it is certainly no document any more."""
    assert case.kind != "argument"
    assert case.kind != "variable"
    path = next(iter(sorted(work.glob(case.place))))
    if not case.within:
        damage = damaged(path, case.kind, rng)
        return damage, is_none(path, case.kind)
    note = path.with_suffix(".note")
    note.write_text(note_in(path, case.within))
    damage = damaged(note, case.kind, rng, in_place=True)
    with_note(path, case.within, note.read_bytes().decode("utf-8", "replace"))
    note.unlink()
    return damage, False


def told(tried: Tried) -> str:
    """One line on a mutant."""
    place = f"{tried.case.place}{f' ({tried.case.within})' if tried.case.within else ''}"
    return f"{tried.number} {place}: {tried.damage!r:.80} | {tried.case.command}"


@click.command()
@click.option("--count", default=1000, help="Mutants.")
@click.option("--seed", default=1)
@click.option("--first", default=0, help="The number of the first mutant.")
@click.option("--only", type=int, help="Run this one alone and print what it printed.")
@click.option("--jobs", default=1, help="Processes.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep mutants that broke a promise in this folder.")
@click.option("--whole", is_flag=True, help="Run every command once, on documents as they are; each must work.")
@click.option("--every", is_flag=True, help="Print what went well, too.")
def main(
    count: int, seed: int, first: int, only: int | None, jobs: int, keep: Path | None, whole: bool, every: bool
) -> None:
    """Run COUNT mutants and print the counts by outcome."""
    warm()
    use_forks()
    if whole:
        seed, first, count = WHOLE, 0, len(CASES)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        prepare(base)
        if only is not None:
            tried = attempt((seed, only, base, keep))
            echo_text(f"{told(tried)}\n{tried.done.out}{tried.done.err}")
            used = f"{tried.done.cpu_s:.1f} s, {tried.done.resident / 1e6:.0f} MB"
            echo(f"exit code {tried.done.code}, {used}, {tried.wrong}, new: {tried.done.new}")
            sys.exit(1 if tried.wrong else 0)
        given = [(seed, number, base, keep) for number in range(first, first + count)]
        broken = 0
        outcomes: Counter[str] = Counter()
        cpu_s, resident = 0.0, 0
        with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=200) as pool:
            for tried in pool.imap_unordered(attempt, given, chunksize=4):
                done = tried.done
                outcomes[f"{tried.case.kind}: {'broken' if tried.wrong else f'exit code {done.code}'}"] += 1
                cpu_s, resident = max(cpu_s, done.cpu_s), max(resident, done.resident)
                broken += bool(tried.wrong)
                if tried.wrong or every:
                    said = "; ".join(tried.wrong) or (done.err.strip().splitlines() or ["well"])[-1][:200]
                    echo(f"{'BROKEN' if tried.wrong else done.code} {told(tried)} | {said}")
    for outcome, number in sorted(outcomes.items()):
        echo(f"{number:6} {outcome}")
    used = f"at most {cpu_s:.0f} s of CPU, {resident / 1e6:.0f} MB"
    echo(f"{count} mutants of seed {seed} from {first} on, {broken} broke a promise; {used}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
