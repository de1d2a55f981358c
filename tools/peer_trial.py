"""One export taken through every candidate: made, compared with the export, timed."""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from measured import ProgramError, measure
from peer_table import Export, Row
from peers import PEERS, Job, without_types

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError, SlimError
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.job.data import Sources
from onnxslim_bert.model.encoder import Encoder
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.proof.bench import Rounds, bench
from onnxslim_bert.proof.comparison import compare
from onnxslim_bert.proof.evaluation import evaluate
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe

BASE, PLAIN = "fp32", "canonicalize?,fuse?,first-token?"


@dataclass(frozen=True)
class Ours:
    """A command of `onnxslim`, and whether it calibrates on the rows, only evaluates, or takes no texts."""

    command: tuple[str, ...]
    texts: Literal["calibrate", "evaluate", "none"]


OURS = {
    "onnxslim": Ours(("quantize",), "calibrate"),
    "onnxslim-qdq": Ours(("quantize", "--format", "qdq"), "calibrate"),
    "onnxslim-dynamic": Ours(("quantize", "--mode", "dynamic"), "evaluate"),
    "onnxslim-4-bit": Ours(
        ("slim", "-p", "canonicalize?,fuse?,first-token?,quantize-blockwise{block=32}"), "calibrate"
    ),
    "onnxslim-exact": Ours(("slim", "-p", f"{PLAIN},skip-mask?"), "none"),
}
CANDIDATES = (*PEERS, *OURS)


@dataclass(frozen=True)
class Settings:
    """What all candidates share.

    data: a set with splits of its own; `rows` of it calibrate. tokenizer: None for that of the model's folder.
    max_length: tokens kept of a row. lengths: tokens at which files are timed, `rounds` times.
    fidelity: whether the evaluation rows are answered. batches: sentences a timed run. threads: of each timed session;
    with several, every file is timed with each. work: a folder to keep the files in; those found there are taken.
    """

    data: str
    rows: int
    seed: int
    tokenizer: Path | None
    max_length: int
    lengths: tuple[int, ...]
    rounds: int
    names: tuple[str, ...]
    fidelity: bool
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    work: Path | None = None


def run(path: Path, settings: Settings) -> list[Export]:
    """Measure the export at `path` and its candidates, once for each number of threads; those that fail say why.

    Raises SlimError for the export.
    """
    encoder = find_encoder(path)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if settings.work is None else settings.work / path.stem
        folder.mkdir(parents=True, exist_ok=True)
        files = {BASE: path, **{name: folder / f"{name}.onnx" for name in settings.names}}
        source = without_types(path, Path(scratch) / "source.onnx")
        rows = [Row(BASE, model_bytes(path))]
        for name in settings.names:
            if files[name].exists():
                rows.append(Row(name, model_bytes(files[name])))
                continue
            progress(path, f"making {name}")
            if name in PEERS:
                command = peer_command(name, source, files[name], encoder, path, settings)
            else:
                command = our_command(name, path, files[name], settings)
            rows.append(make(name, command, files[name], settings))
        if settings.fidelity:
            rows = compare_all(rows, files, settings)
        exports = list[Export]()
        for threads in settings.threads:
            progress(path, f"timing, {threads} thread(s)")
            timed = tuple(time_all(rows, files, settings, threads))
            exports.append(Export(path.stem, len(encoder.layers), encoder.hidden, timed, threads))
    return exports


def find_encoder(path: Path) -> Encoder:
    """The encoder in the file. Raises ModelError."""
    model = Model.load(path)
    run_recipe(model, Recipe.parse("canonicalize?"))
    return model.encoder


def peer_command(
    name: str, source: Path, output: Path, encoder: Encoder, export: Path, settings: Settings
) -> Sequence[str]:
    """The module and arguments that make a peer's file."""
    job = Job(
        source=str(source),
        output=str(output),
        heads=encoder.layers[0].heads,
        hidden=encoder.hidden,
        data=settings.data,
        rows=settings.rows,
        seed=settings.seed,
        tokenizer=str(settings.tokenizer or export.parent),
        max_length=settings.max_length,
    )
    return "peers", name, json.dumps(asdict(job))


def our_command(name: str, export: Path, output: Path, settings: Settings) -> Sequence[str]:
    """The module and arguments that make our file."""
    ours = OURS[name]
    command = ["onnxslim_bert", *ours.command, str(export), "-o", str(output)]
    if ours.texts != "none":
        command += ["--tokenizer", str(settings.tokenizer or export.parent), "--max-length", str(settings.max_length)]
    if ours.texts == "calibrate":
        command += ["--calib", settings.data, "--rows", str(settings.rows), "--seed", str(settings.seed)]
    if ours.texts == "evaluate":
        command += ["--data", settings.data]
    return command


def make(name: str, command: Sequence[str], output: Path, settings: Settings) -> Row:
    """The candidate's file and what it took, or why there is none that runs."""
    try:
        usage = measure(command[0], command[1:])
        bench([output], lengths=settings.lengths, rounds=Rounds(1, 0), footprints=False)
        return Row(name, model_bytes(output), usage)
    except (ProgramError, SlimError) as error:
        return Row(name, failure=str(error))


def compare_all(rows: Sequence[Row], files: Mapping[str, Path], settings: Settings) -> list[Row]:
    """The rows with what each file answers, one sentence at a time, against what the export answers."""
    sources = Sources(calibration=settings.data, tokenizer=settings.tokenizer)
    _, evaluation = sources.load(settings.seed)
    if evaluation is None:
        raise DataError(f"{settings.data} has no evaluation rows of its own: needed a GLUE name or `reviews`")
    tokenizer = sources.tokenizer_for(files[BASE], evaluation)

    def answers(name: str) -> Outputs:
        progress(files[BASE], f"evaluating {name}")
        return evaluate(files[name], evaluation, Working(settings.max_length, tokenizer=tokenizer))

    seen = {row.name: answers(row.name) for row in rows if not row.failure}
    return [
        replace(row, comparison=compare(seen[BASE], seen[row.name], evaluation)) if row.name in seen else row
        for row in rows
    ]


def time_all(rows: Sequence[Row], files: Mapping[str, Path], settings: Settings, threads: int) -> list[Row]:
    """The rows with their latencies on `threads` threads, from one interleaved run of all files."""
    running = [row for row in rows if not row.failure]
    paths = [files[row.name] for row in running]
    latencies = bench(
        paths,
        Working(threads=threads, seed=settings.seed),
        batch_sizes=settings.batches,
        lengths=settings.lengths,
        rounds=Rounds(settings.rounds),
        footprints=False,
    ).latencies
    found = {name: [each for each in latencies if each.model == str(path)] for name, path in files.items()}
    return [replace(row, latencies=tuple(replace(each, model=row.name) for each in found[row.name])) for row in rows]


def progress(export: Path, what: str) -> None:
    """A line on stderr."""
    print(f"{export.stem}: {what}", file=sys.stderr, flush=True)
