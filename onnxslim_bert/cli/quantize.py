"""`onnxslim quantize`: the main job."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from onnxslim_bert.cli.options import COUNT, SEED, THREADS, refuse_ignored
from onnxslim_bert.cli.progress import progress_bar

if TYPE_CHECKING:
    from onnxslim_bert.quantize import Result

FILE = click.Path(dir_okay=False, path_type=Path)
METHODS = ["minmax", "moving-average", "percentile", "entropy", "mse"]


@click.command(epilog="`onnxslim slim` runs any sequence of passes; `onnxslim validate` holds the result to budgets.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--calib", help="Calibration texts: a GLUE name (its training split), `reviews`, or a file.")
@click.option("--data", help="Evaluation texts  [default: the validation split of --calib, where it has one]")
@click.option("-o", "--output", type=FILE, help="The file to write  [default: MODEL.int8.onnx or MODEL.fp16.onnx]")
@click.option(
    "--mode",
    type=click.Choice(["static", "dynamic", "fp16"]),
    default="static",
    show_default=True,
    help="int8 with calibrated ranges, int8 with ranges found at run time, or half precision.",
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
@click.option("--batch", is_flag=True, help="For ragged batches: dense layers skip padding.")
@click.option("--rows", type=COUNT, default=256, show_default=True, help="Calibration rows, sampled.")
@click.option("--max-length", type=COUNT, default=128, show_default=True, help="Tokens kept of a row.")
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="Folder or tokenizer.json  [default: MODEL's folder]"
)
@click.option("--text-column", "text_columns", multiple=True, help="Name one or two text columns of a file.")
@click.option("--label-column", help="Name the label column of a file.")
@click.option(
    "--seed", type=SEED, default=0, show_default=True, help="Of the samples, the ids timed and the intervals."
)
@click.option("--threads", type=THREADS, default=1, show_default=True, help="Of each session.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON document instead of a table.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--in-place", is_flag=True, help="Replace MODEL itself.")
def quantize(
    model: Path,
    calib: str | None,
    data: str | None,
    output: Path | None,
    mode: Literal["static", "dynamic", "fp16"],
    method: str | None,
    form: Literal["contrib", "qdq"],
    no_smooth: bool,
    batch: bool,
    rows: int,
    max_length: int,
    tokenizer: Path | None,
    text_columns: tuple[str, ...],
    label_column: str | None,
    seed: int,
    threads: int,
    as_json: bool,
    force: bool,
    in_place: bool,
) -> None:
    """Write a quantized MODEL and a report of what it is worth: size, accuracy, agreement, speed.

    \b
    onnxslim quantize model.onnx --calib sst2
    onnxslim quantize model.onnx --calib texts.txt --data labelled.tsv -o small.onnx
    onnxslim quantize model.onnx --mode dynamic --data sst2
    onnxslim quantize model.onnx --calib stsb --format qdq --method mse --json
    """
    from onnxslim_bert.quantize import Options, default_output, quantize_files
    from onnxslim_bert.report import report_json, report_path
    from onnxslim_bert.sources import Sources

    if calib is None:
        refuse_ignored(["rows"], "without --calib")
    if calib is None and data is None:
        refuse_ignored(["tokenizer", "text_columns"], "without --calib or --data")
        refuse_ignored(["label_column"], "without --data")
    if in_place:
        refuse_ignored(["output"], "with --in-place")
    options = Options(mode, method, form, not no_smooth, batch, max_length, threads, seed)
    sources = Sources(calib, data, rows, tokenizer, text_columns, label_column)
    target = model if in_place else output or default_output(model, options)
    with progress_bar() as progress:
        result = quantize_files(model, target, sources, options, overwrite=force, in_place=in_place, progress=progress)
    if as_json:
        click.echo(json.dumps(report_json(result), indent=2, allow_nan=False))
    else:
        show(result)
        click.echo(f"{target} and {report_path(target)} written")


def show(result: "Result") -> None:
    """Print what was done and what it is worth."""
    from rich.console import Console
    from rich.table import Table

    from onnxslim_bert.inspection.wording import si

    for done in result.steps:
        click.echo(f"{done.step}: {done.note}")
    table = Table("", "before", "after", "change", box=None, padding=(0, 2, 0, 0))
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
    Console(width=max(Console().width, 110)).print(table)
    if seen is None:
        click.echo("accuracy: not measured; name evaluation texts with --data")
        return
    close = seen.fidelity
    agreement = f"agreement {close.agreement.value:.2f} %, " if close.agreement else ""
    cosine = f", cosine {close.cosine:.5f}" if close.cosine is not None else ""
    click.echo(
        f"{seen.data} {seen.split}, {seen.rows} rows: {agreement}mean |difference| {close.mean_difference:.4f}{cosine}"
    )
