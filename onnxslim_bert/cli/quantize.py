"""`onnxslim quantize`: the main job."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from onnxslim_bert.cli.gate_options import gate_of, held_to
from onnxslim_bert.cli.options import COUNT, SEED, TARGETS, THREADS, Finite, counts, refuse_ignored
from onnxslim_bert.cli.progress import progress_bar
from onnxslim_bert.cli.reading_options import reads_texts
from onnxslim_bert.cli.screen import console, echo, plain_table

if TYPE_CHECKING:
    from onnxslim_bert.calibration.ranges import Method
    from onnxslim_bert.job.make import Saturating
    from onnxslim_bert.job.quantize import Result
    from onnxslim_bert.recipes.lowering import Mode
    from onnxslim_bert.targets.placement import Placement

METHODS = ["minmax", "moving-average", "percentile", "entropy", "mse"]


@click.command(
    epilog="Exit code: 0 written; 2 usage, model or data; 5 provider. A missed budget writes nothing: 3 accuracy or "
    "agreement; 4 latency; 6 size."
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--calib", help="Calibration texts: a GLUE name (its training split), `reviews`, or a file.")
@click.option("--data", help="Evaluation texts  [default: the validation split of --calib, where it has one]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write, or the folder for several lengths  [default: MODEL.int8.onnx, MODEL.qnn.onnx, ...]",
)
@click.option(
    "--target", type=click.Choice(TARGETS), default="cpu", show_default=True, help="On what the model is to run."
)
@click.option(
    "--seq",
    "lengths",
    callback=counts,
    metavar="N,...",
    help="Tokens in a row, for qnn, coreml and nnapi; several write a folder with a file for each.",
)
@click.option(
    "--mode",
    type=click.Choice(["static", "dynamic", "weight-only", "fp16", "fp32"]),
    help="Calibrated int8, int8 with ranges found at run time, int8 weights alone, half precision, or the target's "
    "graph form alone  [default: the target's best measured; static for cpu]",
)
@click.option(
    "--method", type=click.Choice(METHODS), help="How activation ranges are found  [default: the best measured]"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["contrib", "qdq"]),
    default="contrib",
    show_default=True,
    help="ONNX Runtime's own operators (fastest on CPU), or standard ones only.",
)
@click.option("--no-smooth", is_flag=True, help="Leave out smoothing and the splitting of outliers.")
@click.option(
    "--reduce-range/--full-range",
    "reduce_range",
    default=None,
    help="Keep int8 products within 16 bits, for CPUs with AVX2 but no VNNI  [default: as this machine needs]",
)
@click.option("--allow-fallback", is_flag=True, help="Accept nodes that the target leaves to the CPU.")
@click.option("--batch", is_flag=True, help="For ragged batches: dense layers skip padding.")
@click.option("--rows", type=COUNT, default=256, show_default=True, help="Calibration rows, sampled.")
@click.option("--max-length", type=COUNT, default=128, show_default=True, help="Tokens kept of a row.")
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="Folder or tokenizer.json  [default: MODEL's folder]"
)
@reads_texts
@click.option("--text-column", "text_columns", multiple=True, help="Name one or two text columns of a file.")
@click.option("--label-column", help="Name the label column of a file.")
@click.option(
    "--seed", type=SEED, default=0, show_default=True, help="Of the samples, the ids timed and the intervals."
)
@click.option("--threads", type=THREADS, default=1, show_default=True, help="Of each session.")
@click.option("--max-drop", type=Finite(-100, 100), help="Points that the task metric may drop.")
@held_to
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON document instead of a table.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--in-place", is_flag=True, help="Replace MODEL itself.")
def quantize(
    model: Path,
    calib: str | None,
    data: str | None,
    output: Path | None,
    target: str,
    lengths: list[int] | None,
    mode: "Mode | None",
    method: "Method | None",
    form: Literal["contrib", "qdq"],
    no_smooth: bool,
    reduce_range: bool | None,
    allow_fallback: bool,
    batch: bool,
    rows: int,
    max_length: int,
    tokenizer: Path | None,
    inputs: str,
    text_columns: tuple[str, ...],
    label_column: str | None,
    seed: int,
    threads: int,
    max_drop: float | None,
    min_agreement: float | None,
    min_speedup: float | None,
    max_size: str | None,
    strict: bool,
    as_json: bool,
    force: bool,
    in_place: bool,
) -> None:
    """Write a quantized MODEL and a report of what it is worth: size, accuracy, agreement, speed.

    \b
    onnxslim quantize model.onnx --calib sst2
    onnxslim quantize model.onnx --calib sst2 --max-drop 1 --min-agreement 98 --min-speedup 2 --max-size 24MB
    onnxslim quantize model.onnx --calib texts.txt --data labelled.tsv -o small.onnx
    onnxslim quantize model.onnx --mode dynamic --data sst2
    onnxslim quantize model.onnx --calib stsb --format qdq --method mse --json
    onnxslim quantize model.onnx --target qnn --seq 32,64,128 --calib sst2
    onnxslim quantize model.onnx --target openvino --data sst2
    """
    from onnxslim_bert.job.data import Sources
    from onnxslim_bert.job.options import Options
    from onnxslim_bert.job.quantize import default_output, quantize_files
    from onnxslim_bert.proof.documents import report_json, report_path
    from onnxslim_bert.proof.gates import enforce

    if calib is None:
        refuse_ignored(["rows"], "without --calib")
    if calib is None and data is None:
        refuse_ignored(["tokenizer", "text_columns"], "without --calib or --data")
        refuse_ignored(["label_column"], "without --data")
    if in_place:
        refuse_ignored(["output"], "with --in-place")
    options = Options(
        mode=mode,
        method=method,
        format=form,
        smooth=not no_smooth,
        batch=batch,
        max_length=max_length,
        threads=threads,
        seed=seed,
        target=target,
        seq=tuple(lengths or ()),
        reduce_range=reduce_range,
        allow_fallback=allow_fallback,
    )
    sources = Sources(calib, data, rows, tokenizer, text_columns, label_column, inputs=inputs)
    gate = gate_of(max_drop, min_agreement, min_speedup, max_size, strict)
    written = model if in_place else output or default_output(model, options)
    with progress_bar() as progress:
        result = quantize_files(
            model, written, sources, options, gate=gate, overwrite=force, in_place=in_place, progress=progress
        )
    if as_json:
        echo(json.dumps(report_json(result), indent=2, allow_nan=False))
    else:
        show(result)
        ends = f"{written} and {report_path(written)} written" if result.published else "nothing written"
        echo(ends)
    if not result.published:
        enforce(result.verdicts, strict)


def show(result: "Result") -> None:
    """Print what was done and what it is worth."""
    from onnxslim_bert.proof.wording import si

    for done in result.steps:
        echo(f"{done.step}: {done.note}")
    table = plain_table("", "before", "after", "change")
    before, after = result.source_bytes, result.output_bytes
    table.add_row("size", si(before, "B"), si(after, "B"), f"{before / after:.2f}x smaller")
    seen = result.comparison
    for score in seen.scores if seen else ():
        table.add_row(
            score.metric,
            *(f"{x.value:.2f} ({x.low:.1f} to {x.high:.1f})" for x in (score.base, score.candidate, score.drop)),
        )
    if result.latencies:
        slow, fast = result.latencies
        gain = fast.speedup
        table.add_row(
            f"latency, batch {fast.batch}, {fast.length} tokens",
            f"{slow.median_ms:.2f} ms",
            f"{fast.median_ms:.2f} ms",
            f"{gain.value:.2f}x faster ({gain.low:.2f} to {gain.high:.2f})",
        )
    console(least=110).print(table)
    for line in notes(result):
        echo(line)
    for verdict in result.verdicts:
        echo(str(verdict))
    if seen is None:
        echo("accuracy: not measured; name evaluation texts with --data")
        return
    close = seen.fidelity
    agreement = f"agreement {close.agreement.value:.2f} %, " if close.agreement else ""
    cosine = f", cosine {close.cosine:.5f}" if close.cosine is not None else ""
    echo(
        f"{seen.data} {seen.split}, {seen.rows} rows on {result.proven_on}: {agreement}"
        f"mean |difference| {close.mean_difference:.4f}{cosine}"
    )


def notes(result: "Result") -> Iterator[str]:
    """Where it runs, which file holds which length, and what other CPUs would make of it."""
    if result.buckets:
        yield "lengths: " + ", ".join(f"{length} in {file}" for length, file in result.buckets.items())
    yield from where(result.placement, result.unproven)
    if not result.latencies:
        yield "latency: not measured, as nothing on this machine runs it at the speed of the target"
    if result.saturating and result.saturating.layers:
        yield saturation(result.saturating)


def where(placement: "Placement | None", unproven: str) -> Iterator[str]:
    """Where a model's nodes run, and what could not be shown of it."""
    if placement:
        yield placed(placement) + f" ({unproven})" * bool(unproven)
    elif unproven:
        yield f"not run: {unproven}"


def placed(placement: "Placement") -> str:
    """How much of a model a provider takes, or is predicted to take."""
    pieces = f"{placement.partitions} piece{'s' * (placement.partitions != 1)}"
    verb = "would take" if placement.predicted else "takes"
    return f"{placement.provider} {verb} {placement.taken} of {placement.total} nodes in {pieces}"


def saturation(found: "Saturating") -> str:
    """What CPUs without VNNI lose."""
    return (
        f"on CPUs with AVX2 but no VNNI, int8 sums of {found.layers} layers can saturate, with a loss of up to "
        f"{found.loss:.1%} ({found.worst}); --reduce-range avoids it"
    )
