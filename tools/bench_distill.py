"""Measure distilled students of one classifier, beside the figures to reach.

    ONNXSLIM_DATA=FOLDER python tools/bench_distill.py MODEL.onnx --calib sst2 --corpus sst2

The files are timed beside the model in one interleaved run, one thread, batch 1; `--no-timing` leaves that out where
the machine is busy. A table goes to stdout in Markdown, progress to stderr.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert import __version__
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import SlimError
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.report import Report
from onnxslim_bert.job.run import run
from onnxslim_bert.machine import host
from onnxslim_bert.proof.bench import Rounds, bench
from onnxslim_bert.recipes.known import read_recipe


@dataclass(frozen=True)
class Case:
    """asked: times as fast, megabytes and points lost at most; empty when nothing is. recipe: that is to do it."""

    name: str
    recipe: str
    asked: str = ""


# of MiniLM-L6: what comes nearest to the third figure, and no recipe that ships, since it loses more than is asked
NARROW = (
    "canonicalize?,fuse?,trim-vocabulary{tokens=8950},drop-layers{layers=4/3/2,refit=false},"
    "prune{heads=6/4/4,neurons=288/256/1024},first-token?,"
    "distill{texts=60000,copies=0.75,epochs=5,rate=0.0005,words=true},split-outliers?,smooth?,quantize-static,skip-mask?"
)
CASES = (
    Case("b", "@distilled-int8", "10x, 8 MB, 1.0; 8x, 10 MB, 0.5"),
    Case("six", "@distilled-4-bit-words", "10x, 6 MB, 1.0"),
    Case("c", NARROW, "15x, 6 MB, 2.5"),
    Case("d", "@distilled-bilstm", "100x, 2 MB, 6"),
    Case("e", "@distilled-static", "300x, 4 MB, 10"),
)


@dataclass(frozen=True)
class Made:
    """What came of a case. cpu_s: of everything, evaluation of both models included."""

    case: Case
    report: Report
    cpu_s: float


def main() -> None:
    options = parse()
    cases = [case for case in CASES if case.name in (options.only or [case.name])]
    cases = [Case(recipe, recipe) for recipe in options.recipe] or cases
    sources = Sources(options.calib, options.data, options.rows, options.tokenizer, corpus=options.corpus)
    machine = host()
    print(f"onnxslim-bert {__version__}, onnxruntime {machine.onnxruntime}, {machine.cpu}, load {machine.load}")
    print(f"{options.model.name}; texts of {options.corpus or options.calib} without labels\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            made = [make(case, options.model, Path(scratch), sources, options.seed) for case in cases]
            speeds = speed_ups(options.model, made, options) if options.timing else {}
        except SlimError as error:
            sys.exit(f"bench_distill: {error}")
    print("| case | asked | speed-up | file | accuracy | drop, points | agreement | CPU of everything |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for one in made:
        print(line(one, speeds.get(one.case.name)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL", help="an export in fp32")
    parser.add_argument("--calib", default="sst2", help="a GLUE name, `reviews` or a file (default sst2)")
    parser.add_argument("--corpus", help="texts to learn from: a GLUE name or a file (default: the calibration rows)")
    parser.add_argument("--data", help="rows to evaluate on (default: those of --calib's own)")
    parser.add_argument("--rows", type=int, default=512, help="calibration rows (default 512)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path, help="folder or tokenizer.json (default: the model's folder)")
    parser.add_argument("--seq", type=int, default=128, help="length to time at (default 128)")
    parser.add_argument("--rounds", type=int, default=50, help="timed runs of each file (default 50)")
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], metavar="CASE")
    parser.add_argument("--recipe", action="append", default=[], metavar="PASSES", help="instead of the cases")
    parser.add_argument("--no-timing", dest="timing", action="store_false", help="sizes and answers only")
    return parser.parse_args()


def make(case: Case, model: Path, folder: Path, sources: Sources, seed: int) -> Made:
    """Run the recipe of a case, with its evaluation. Raises SlimError."""
    print(f"{case.name}: {case.recipe}", file=sys.stderr, flush=True)
    started = time.process_time()
    output = folder / f"{len(list(folder.iterdir()))}.onnx"
    working = Working(seed=seed, progress=said)
    job = Job(model, output, read_recipe(case.recipe), sources, working=working, report=False, timing=False)
    return Made(case, run(job), time.process_time() - started)


def said(task: str, done: int, total: int) -> None:
    """A line on stderr for each judgement of a training."""
    if task.startswith("distilling"):
        print(f"    {done / total:.0%} {task}", file=sys.stderr, flush=True)


def speed_ups(model: Path, made: list[Made], options: argparse.Namespace) -> dict[str, float]:
    """Times as fast as the model, by case, from one interleaved run."""
    files = [model, *(one.report.output for one in made)]
    working, rounds = Working(seed=options.seed), Rounds(options.rounds)
    found = bench(files, working, lengths=[options.seq], rounds=rounds, footprints=False).latencies
    speeds = {latency.model: latency.speedup.value for latency in found}
    return {one.case.name: speeds[str(one.report.output)] for one in made}


def line(one: Made, speed: float | None) -> str:
    """A row of the table."""
    comparison = one.report.comparison
    score = comparison.scores[0] if comparison is not None and comparison.scores else None
    agreement = comparison.fidelity.agreement if comparison is not None else None
    cells = [
        one.case.name if one.case.asked else f"`{one.case.recipe}`",
        one.case.asked,
        f"{speed:.2f}x" if speed else "not timed",
        f"{one.report.output_bytes / 1e6:.1f} MB",
        "" if score is None else f"{score.base.value:.2f} -> {score.candidate.value:.2f}",
        "" if score is None else f"{score.drop.value:.2f}",
        "" if agreement is None else f"{agreement.value:.2f} %",
        f"{one.cpu_s:.0f} s",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
