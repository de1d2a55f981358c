"""`onnxslim inspect`: what a model file is."""

import json
from pathlib import Path

import click

from onnxslim_bert.cli.options import COUNT, ModelFile
from onnxslim_bert.cli.screen import echo_text


@click.command(
    epilog="Exit code 2 when the file holds no encoder that can be read; what it is gets printed all the same."
)
@click.argument("model", type=ModelFile(exists=False))
@click.option("--batch", type=COUNT, default=1, show_default=True, help="Sentences for which FLOPs are counted.")
@click.option("--seq", type=COUNT, default=128, show_default=True, help="Tokens of each.")
@click.option("--sha256", is_flag=True, help="Hash the file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def inspect(model: Path, batch: int, seq: int, sha256: bool, as_json: bool) -> None:
    """Print what MODEL is: exporter, inputs, layers, costs by part, problems, and what each pass could do with it.

    Nothing is read from names of weights. The exact passes are tried on a copy in memory.

    \b
    onnxslim inspect model.onnx
    onnxslim inspect model.onnx --batch 8 --seq 32
    onnxslim inspect model.onnx --json > model.json
    """
    from onnxslim_bert.errors import ModelError
    from onnxslim_bert.inspection.describe import describe
    from onnxslim_bert.inspection.inspection import inspect as run_inspection

    result = run_inspection(model, batch=batch, seq=seq, sha256=sha256)
    echo_text(json.dumps(result.to_json(), indent=2, allow_nan=False) if as_json else describe(result))
    if result.encoder is None:
        raise ModelError(f"{model}: {result.reason}")
