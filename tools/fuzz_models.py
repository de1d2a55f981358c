"""Run every verb on models damaged at random, and count what came of it; exit 1 when a promise was broken.

    python tools/fuzz_models.py --count 2000 --seed 1 --jobs 2

The promises are those of docs/reliability.md: no traceback, no exit code 1, no signal, 30 s of CPU and 1.5 GB at most,
one line of error, nothing left behind, and a written file only where it opens and answers as the source does. Mutant I
of seed S is the same file and the same command on every machine: `--only I` runs it alone, `--keep FOLDER` keeps those
that broke a promise.
"""

import gc
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from forked import use_forks
from mutations import mutated
from trial_runs import GB, Limits, Run, run, same_answers, warm, wrongs

from onnxslim_bert.cli.screen import echo, echo_text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from command_line import write_rows, write_tokenizer  # type: ignore[import-not-found]  # noqa: E402

FIXTURES = (
    *("bert-ts17-sdpa", "bert-dynamo20-sdpa", "bert-ts13-eager", "albert-ts14-sdpa", "distilbert-dynamo18-eager"),
    *("prenorm-ts17-eager", "electra-dynamo20-eager", "roberta-ts17-eager", "fused-attention", "fused-mha", "bert-mlm"),
    *("bert-dynamo23-sdpa", "quantized-qdq", "bert-features-pooled"),
)
MADE = "made.onnx"
SAID = 100  # mutants after which a line says how far it is
EXACT = 1e-3  # of the largest answer: how far an exact recipe may be off
PHONE = "canonicalize?,fix-shapes{seq=8}?,split-sums?,dense-2d?,int32-inputs?"
VERBS = (  # command, and how far from the source's answers its output may be (None: not compared)
    ("inspect model.onnx", None),
    ("inspect model.onnx --json --sha256", None),
    (f"slim model.onnx -p canonicalize?,fuse? -o {MADE}", EXACT),
    (f"slim model.onnx -p canonicalize?,first-token?,skip-mask?,unpad? -o {MADE}", EXACT),
    (f"slim model.onnx -p canonicalize?,share-weights?,unfuse-norms? -o {MADE}", EXACT),
    (f"slim model.onnx -p canonicalize?,prune-heads?,prune-ffn? --calib calib.tsv --data eval.tsv -o {MADE}", None),
    (f"slim model.onnx -p canonicalize?,low-rank?,sparsify? --calib calib.tsv --data eval.tsv -o {MADE}", None),
    (f"slim model.onnx -p canonicalize?,fuse?,float16 -o {MADE}", None),
    (f"slim model.onnx -p {PHONE} -o {MADE}", EXACT),
    (f"slim model.onnx -p canonicalize?,mask-bias?,gelu-tanh?,fuse? -o {MADE}", None),
    (f"slim model.onnx -p canonicalize?,factorize-embedding?,quantize-weights? --calib calib.tsv -o {MADE}", None),
    (f"slim model.onnx -p canonicalize?,drop-layers?,smooth?,quantize-static? --calib calib.tsv -o {MADE}", None),
    (f"slim model.onnx -p canonicalize?,quantize-blockwise?,quantize-embedding? --calib calib.tsv -o {MADE}", None),
    (f"quantize model.onnx --calib calib.tsv --data eval.tsv --method minmax -o {MADE}", None),
    (f"quantize model.onnx --calib calib.tsv --format qdq --method minmax -o {MADE}", None),
    (f"quantize model.onnx --mode dynamic --data eval.tsv -o {MADE}", None),
    (f"quantize model.onnx --mode weight-only --data eval.tsv -o {MADE}", None),
    (f"quantize model.onnx --mode fp16 --data eval.tsv -o {MADE}", None),
    (f"quantize model.onnx --mode fp32 --target nnapi --seq 8 -o {MADE}", None),
    ("validate model.onnx model.onnx --data eval.tsv", None),
    ("bench model.onnx --seq 4 --rounds 2", None),
    ("explain model.onnx --target coreml", None),
    ("explain model.onnx --target nnapi", None),
    ("verify model.onnx", None),
    ("mobile model.onnx -o phone", None),
    ("zoo init . -o listed.toml", None),
)
STARTS = ("bench", "mobile", "zoo")  # verbs that start a new Python, a second or three; drawn RARER times less often
RARER = 3
LIMITS = Limits(cpu_s=30, wall_s=300, resident=GB + GB // 2)
SMALL, A_BYTE = 5_000_000, 16  # bytes of a file that keeps within these limits, and of memory for each byte beyond


@dataclass(frozen=True)
class Tried:
    """A mutant, what was run on it, and which promises were broken."""

    number: int
    damage: str
    fixture: str
    done: Run
    wrong: tuple[str, ...]


def mutant(seed: int, number: int) -> tuple[str, str, bytes, tuple[str, float | None]]:
    """The damage, the fixture, the damaged file and the verb of mutant `number`."""
    rng = np.random.default_rng([seed, number])
    fixture = str(rng.choice(FIXTURES))
    often = np.array([1 if command.startswith(STARTS) else RARER for command, _ in VERBS])
    verb = VERBS[int(rng.choice(len(VERBS), p=often / often.sum()))]
    damage, data = mutated((ROOT / "tests" / "fixtures" / f"{fixture}.onnx").read_bytes(), rng)
    return damage, fixture, data, verb


def small_data(folder: Path) -> None:
    """A tokenizer, rows to calibrate and to evaluate on, which the fixtures take; a link out of the folder, a pipe."""
    (folder / "link.bin").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.bin")
    write_tokenizer(folder)
    write_rows(folder / "calib.tsv", 40, seed=1)
    write_rows(folder / "eval.tsv", 24, seed=2)


def attempt(given: tuple[int, int, Path | None]) -> Tried:
    """Make a mutant, run its verb on it, and look at what came of it."""
    seed, number, keep = given
    damage, fixture, data, (command, tolerance) = mutant(seed, number)
    limits = replace(LIMITS, resident=LIMITS.resident + A_BYTE * max(0, len(data) - SMALL))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "work")
        work.mkdir()
        (work / "model.onnx").write_bytes(data)
        small_data(work)
        done = run(command.split(), work, limits)
        wrong = wrongs(done, limits)
        if not done.code and MADE in done.new:
            wrong += same_answers(work / "model.onnx", work / MADE, tolerance, limits)
        if wrong and keep:
            for made in ("link.bin", "pipe.bin"):
                (work / made).unlink(missing_ok=True)
            shutil.copytree(work, keep / f"{seed}-{number}", dirs_exist_ok=True)
    return Tried(number, damage, fixture, done, tuple(wrong))


@click.command()
@click.option("--count", default=2000, help="Mutants.")
@click.option("--seed", default=1)
@click.option("--first", default=0, help="The number of the first mutant.")
@click.option("--only", type=int, help="Run this one alone and print what it printed.")
@click.option("--jobs", default=2, help="Processes.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep mutants that broke a promise in this folder.")
def main(count: int, seed: int, first: int, only: int | None, jobs: int, keep: Path | None) -> None:
    """Run COUNT mutants and print the counts by outcome."""
    warm()
    use_forks()
    gc.freeze()  # forks need not look through, and so copy, what is here already
    if only is not None:
        tried = attempt((seed, only, keep))
        echo_text(
            f"{tried.fixture}, {tried.damage}: {' '.join(tried.done.arguments)}\n{tried.done.out}{tried.done.err}"
        )
        echo(
            f"exit code {tried.done.code}, {tried.done.cpu_s:.1f} s, {tried.done.resident / 1e6:.0f} MB, {tried.wrong}"
        )
        sys.exit(1 if tried.wrong else 0)
    outcomes: Counter[str] = Counter()
    broken = 0
    most, spent = {"s of CPU": 0.0, "MB": 0.0}, 0.0
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=200) as pool:
        given = [(seed, number, keep) for number in range(first, first + count)]
        for tried in pool.imap_unordered(attempt, given, chunksize=4):
            verb = tried.done.arguments[0]
            outcomes[f"{verb}: {'broken' if tried.wrong else f'exit code {tried.done.code}'}"] += 1
            most = {
                "s of CPU": max(most["s of CPU"], tried.done.cpu_s),
                "MB": max(most["MB"], tried.done.resident / 1e6),
            }
            spent += tried.done.cpu_s
            if not outcomes.total() % SAID:
                echo(f"{outcomes.total()} of {count} run, {broken} broke a promise", err=True)
            if tried.wrong:
                broken += 1
                command = " ".join(tried.done.arguments)
                echo(f"BROKEN {tried.number} {tried.fixture} {tried.damage} | {command} | {'; '.join(tried.wrong)}")
    for outcome, number in sorted(outcomes.items()):
        echo(f"{number:6} {outcome}")
    used = ", ".join(f"{value:.0f} {unit}" for unit, value in most.items())
    each = spent / max(count, 1)
    echo(f"{count} mutants of seed {seed} from {first} on, {broken} broke a promise; at most {used}; {each:.2f} s each")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
