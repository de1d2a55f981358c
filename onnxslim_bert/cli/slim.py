"""`onnxslim slim`: any sequence of passes."""

import json
from pathlib import Path

import click

from onnxslim_bert.cli.options import COUNT, SEED, THREADS, refuse_ignored
from onnxslim_bert.cli.progress import progress_bar


@click.command(epilog="`onnxslim passes` lists the passes; a `?` after one lets it find nothing to do.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-p", "--recipe", required=True, help="Passes with options: fuse,quantize-static{method=mse}")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
@click.option("--calib", help="Calibration texts: a GLUE name (its training split), `reviews`, or a file.")
@click.option("--rows", type=COUNT, default=256, show_default=True, help="Calibration rows, sampled.")
@click.option("--max-length", type=COUNT, default=128, show_default=True, help="Tokens kept of a row.")
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="Folder or tokenizer.json  [default: MODEL's folder]"
)
@click.option("--text-column", "text_columns", multiple=True, help="Name one or two text columns of a file.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the sample.")
@click.option("--threads", type=THREADS, default=1, show_default=True, help="Of the session that calibrates.")
@click.option("--allow-noop", is_flag=True, help="Accept a pass that changes nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@click.option("--in-place", is_flag=True, help="Replace MODEL itself.")
def slim(
    model: Path,
    recipe: str,
    output: Path | None,
    calib: str | None,
    rows: int,
    max_length: int,
    tokenizer: Path | None,
    text_columns: tuple[str, ...],
    seed: int,
    threads: int,
    allow_noop: bool,
    as_json: bool,
    force: bool,
    in_place: bool,
) -> None:
    """Run the passes of a recipe over MODEL, in order.

    \b
    onnxslim slim model.onnx -p "canonicalize?,fuse,first-token" -o fast.onnx
    onnxslim slim model.onnx -p "canonicalize?,fuse,smooth,quantize-static{format=qdq}" --calib sst2 -o int8.onnx
    """
    from onnxslim_bert.inspection.wording import si
    from onnxslim_bert.quantize import Options
    from onnxslim_bert.recipe import Recipe
    from onnxslim_bert.report import report_json
    from onnxslim_bert.slim import slim as run_slim
    from onnxslim_bert.sources import Sources

    if (output is None) is not in_place:
        raise click.UsageError("give either -o OUTPUT or --in-place")
    if calib is None:
        refuse_ignored(["rows", "max_length", "tokenizer", "text_columns", "seed", "threads"], "without --calib")
    target = output or model
    parsed = Recipe.parse(recipe)
    sources = Sources(calibration=calib, rows=rows, tokenizer=tokenizer, text_columns=text_columns)
    options = Options(max_length=max_length, threads=threads, seed=seed)
    with progress_bar() as progress:
        result = run_slim(
            model,
            target,
            parsed,
            sources,
            options,
            allow_noop=allow_noop,
            overwrite=force,
            in_place=in_place,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(report_json(result), indent=2, allow_nan=False))
        return
    for done in result.steps:
        click.echo(f"{done.step}: {done.note}")
    click.echo(f"{target}: {si(result.output_bytes, 'B')}, from {si(result.source_bytes, 'B')}")
