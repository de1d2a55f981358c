"""`onnxslim slim`: any sequence of passes."""

import json
from pathlib import Path

import click

from onnxslim_bert.cli.progress import progress_bar

COUNT = click.IntRange(min=1)


@click.command(epilog="`onnxslim passes` lists the passes; a `?` after one lets it find nothing to do.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-p", "--recipe", required=True, help="Passes with options: fuse,quantize-static{method=mse}")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write."
)
@click.option("--calib", help="Calibration texts: a GLUE name (its training split), `reviews`, or a file.")
@click.option("--rows", type=COUNT, default=256, show_default=True, help="Calibration rows, sampled.")
@click.option("--max-length", type=COUNT, default=128, show_default=True, help="Tokens kept of a row.")
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="Folder or tokenizer.json  [default: MODEL's folder]"
)
@click.option("--text-column", "text_columns", multiple=True, help="Name one or two text columns of a file.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--allow-noop", is_flag=True, help="Accept a pass that changes nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def slim(
    model: Path,
    recipe: str,
    output: Path,
    calib: str | None,
    rows: int,
    max_length: int,
    tokenizer: Path | None,
    text_columns: tuple[str, ...],
    seed: int,
    allow_noop: bool,
    as_json: bool,
    force: bool,
) -> None:
    """Run the passes of a recipe over MODEL, in order.

    \b
    onnxslim slim model.onnx -p canonicalize,fuse,first-token -o fast.onnx
    onnxslim slim model.onnx -p "canonicalize?,fuse,smooth,quantize-static{format=qdq}" --calib sst2 -o int8.onnx
    """
    from onnxslim_bert.quantize import Options, Sources
    from onnxslim_bert.recipe import Recipe
    from onnxslim_bert.report import report_json
    from onnxslim_bert.slim import slim as run_slim

    parsed = Recipe.parse(recipe)
    sources = Sources(calibration=calib, rows=rows, tokenizer=tokenizer, text_columns=text_columns)
    options = Options(max_length=max_length, seed=seed)
    with progress_bar() as progress:
        result = run_slim(
            model, output, parsed, sources, options, allow_noop=allow_noop, overwrite=force, progress=progress
        )
    if as_json:
        click.echo(json.dumps(report_json(result), indent=2, allow_nan=False))
        return
    for done in result.steps:
        click.echo(f"{done.step}: {done.note}")
    before, after = result.source_bytes / 1e6, result.output_bytes / 1e6
    click.echo(f"{output}: {after:.1f} MB, from {before:.1f} MB")
