"""`onnxslim bench`: latency, memory and load time of models beside each other."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxslim_bert.cli.options import COUNT, SEED, THREADS, ModelFile, counts, refuse_all_but, refuse_ignored
from onnxslim_bert.cli.progress import progress_bar
from onnxslim_bert.cli.reading_options import clamped, reads_texts
from onnxslim_bert.cli.screen import console, echo, echo_json, plain_table
from onnxslim_bert.cli.targets_option import places, runs_on
from onnxslim_bert.wording import plural

if TYPE_CHECKING:
    from onnxslim_bert.proof.bench import Bench
    from onnxslim_bert.proof.instructions import Counted
    from onnxslim_bert.targets.target import Target

PATH = click.Path(exists=True, path_type=Path)


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=ModelFile())
@click.option(
    "--batch", "batch_sizes", callback=counts, metavar="N,...", default="1", show_default=True, help="Rows a run."
)
@click.option("--seq", "lengths", callback=counts, metavar="N,...", help="Tokens a row, random ids  [default: 128]")
@click.option(
    "--data",
    help="Time real texts at their own lengths: a GLUE name, a built-in set like `reviews`, or a file.",
)
@click.option("--text-column", "text_columns", multiple=True, help="Name one or two text columns of a file.")
@click.option("--tokenizer", type=PATH, help="Folder or tokenizer.json for --data  [default: the first MODEL's folder]")
@click.option("--max-length", type=COUNT, default=128, show_default=True, help="Tokens kept of a real text.")
@reads_texts
@runs_on
@click.option("--rounds", type=COUNT, default=50, show_default=True, help="Timed runs of every model.")
@click.option("--threads", type=THREADS, default=1, show_default=True, help="Of each session.")
@click.option("--spinning", is_flag=True, help="Let idle threads spin, which a busy host punishes.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the ids, rows and order of models.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def bench(
    models: tuple[Path, ...],
    batch_sizes: list[int],
    lengths: list[int] | None,
    data: str | None,
    text_columns: tuple[str, ...],
    tokenizer: Path | None,
    max_length: int,
    inputs: str,
    targets: "tuple[Target, ...]",
    allow_fallback: bool,
    options: dict[str, dict[str, str]],
    rounds: int,
    threads: int,
    spinning: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Time every MODEL on every provider in interleaved rounds, and its memory and loading in a process of its own.

    Speed-ups are against the first MODEL on the first provider, paired by round, with 95 % intervals; on texts (--data)
    they are ratios of mean times. QNN is emulated, so it cannot be timed; on cpu@arm64 and cpu@arm64-v8, emulated too,
    instructions are counted instead, which is no time.

    \b
    onnxslim bench model.onnx model.int8.onnx
    onnxslim bench model.onnx model.int8.onnx --batch 1,8 --seq 32,128
    onnxslim bench model.onnx model.int8.onnx --data sst2 --batch 16 --json
    onnxslim bench model.onnx model.int8.onnx --ep cpu,openvino
    onnxslim bench model.onnx model.int8.onnx --ep cpu@arm64,cpu@arm64-v8
    """
    from onnxslim_bert.calibration.load_tokenizer import tokenizer_of
    from onnxslim_bert.calibration.loading import load_dataset
    from onnxslim_bert.calibration.working import Working
    from onnxslim_bert.proof.bench import Rounds
    from onnxslim_bert.proof.bench import bench as run_bench
    from onnxslim_bert.proof.documents import report_json
    from onnxslim_bert.proof.instructions import count_instructions
    from onnxslim_bert.targets.table import EMULATED

    if any(target.name in EMULATED for target in targets):
        taken = ["batch_sizes", "lengths", "inputs", "targets", "seed", "as_json"]
        refuse_all_but(taken, "where instructions are counted, of random ids on one thread")
        with progress_bar() as progress:
            counted = count_instructions(
                models,
                targets,
                Working(seed=seed, inputs=inputs, progress=progress),
                batch_sizes=batch_sizes,
                lengths=lengths or [128],
            )
        if as_json:
            echo_json(report_json(counted))
        else:
            show_counts(counted)
        return
    if data is None:
        refuse_ignored(["text_columns", "tokenizer", "max_length"], "without --data")
    if data and lengths:
        raise click.UsageError("--data times texts at their own lengths: give it or --seq, not both")
    dataset = load_dataset(data, "evaluation", text_columns=text_columns or None) if data else None
    if dataset and dataset.feeds is not None:
        refuse_ignored(["tokenizer", "text_columns", "max_length", "inputs"], "with ready inputs")
    reader = tokenizer_of(models[0], tokenizer, inputs) if dataset and dataset.feeds is None else None
    with progress_bar() as progress:
        result = run_bench(
            models,
            Working(max_length, threads, seed, reader, inputs, progress=progress),
            batch_sizes=batch_sizes,
            lengths=lengths or [128],
            dataset=dataset,
            rounds=Rounds(rounds, spinning=spinning),
            places=places(targets, allow_fallback, options),
        )
    if as_json:
        echo_json(result.to_json())
    else:
        show(result)
        for line in clamped(max_length, min(max_length, reader.max_length if reader else max_length)):
            echo(line)


def show(result: "Bench") -> None:
    """Print the times, the footprints and the conditions."""
    texts = ["mean"] * any(row.mean_ms is not None for row in result.latencies)
    times = plain_table("model", "provider", "batch", "tokens", "median ms", "p90", "p99", *texts, "speed-up")
    for row in result.latencies:
        tokens = "text" if row.length is None else str(row.length)
        ratio = f"{row.speedup.value:.2f}x ({row.speedup.low:.2f}-{row.speedup.high:.2f})"
        spread = f"{row.median_ms:.2f}", f"{row.p90_ms:.2f}", f"{row.p99_ms:.2f}"
        mean = [] if row.mean_ms is None else [f"{row.mean_ms:.2f}"]
        times.add_row(Path(row.model).name, row.target, str(row.batch), tokens, *spread, *mean, ratio)
    taken = plain_table("model", "nodes", "file MB", "peak memory MB", "load ms")
    for model, took in result.footprints.items():
        sizes = f"{took.nbytes / 1e6:.1f}", f"{took.peak_bytes / 1e6:.0f} ({took.idle_bytes / 1e6:.0f} before)"
        place = result.placements[model]
        taken.add_row(Path(model).name, f"{place.taken}/{place.total}", *sizes, f"{took.load_ms:.0f}")
    screen = console()
    screen.print(times, "", taken, "", sep="\n")
    spinning = "on" if result.spinning else "off"
    screen.print(
        f"{result.rounds} interleaved rounds, {plural(result.threads, 'thread')}, spinning {spinning}; "
        f"{result.host.cpu}, {result.host.cpus} CPUs, load {result.host.load}; onnxruntime {result.host.onnxruntime}",
        soft_wrap=True,
    )


def show_counts(counted: "Counted") -> None:
    """Print the counts, and what they are."""
    table = plain_table("model", "provider", "batch", "tokens", "million instructions a row", "of the first's")
    for row in counted.instructions:
        million = f"{row.per_row / 1e6:.1f}"
        table.add_row(Path(row.model).name, row.target, str(row.batch), str(row.length), million, f"{row.relative:.3f}")
    console().print(table, "")
    for row in counted.fewest:
        echo(f"fewest on {row.target}, batch {row.batch}, {plural(row.length, 'token')}: {Path(row.model).name}")
    echo("instructions, counted by the emulator; not time: one may multiply 4 numbers or 64, and wait for memory")
