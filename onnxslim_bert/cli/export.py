"""`onnxslim export`: ONNX from a Hugging Face model."""

from pathlib import Path
from typing import Literal

import click

from onnxslim_bert.cli.screen import echo


@click.command(epilog="Needs the [export] extra: pip install 'onnxslim-bert[export]'.")
@click.argument("source", metavar="HF_DIR_OR_ID")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write."
)
@click.option(
    "--exporter",
    type=click.Choice(["dynamo", "torchscript"]),
    default="dynamo",
    show_default=True,
    help="torch.export, or the older tracing exporter.",
)
@click.option(
    "--attention",
    type=click.Choice(["sdpa", "eager"]),
    help="The attention that transformers runs  [default: what config.json asks for, else sdpa where there is one]",
)
@click.option("--opset", type=int, help="ONNX opset  [default: 18 for dynamo, 17 for torchscript]")
@click.option("--force", is_flag=True, help="Replace files that exist.")
def export(
    source: str,
    output: Path,
    exporter: Literal["dynamo", "torchscript"],
    attention: Literal["sdpa", "eager"] | None,
    opset: int | None,
    force: bool,
) -> None:
    """Write a Hugging Face encoder as one ONNX file, with its tokenizer's files beside it.

    The file is compared with PyTorch on padded batches of several sizes before it gets its name.

    \b
    onnxslim export ./my-bert -o model.onnx
    onnxslim export ./my-bert -o model.onnx --exporter torchscript --attention eager
    onnxslim export google/electra-small-discriminator -o electra.onnx --opset 20
    """
    from onnxslim_bert.export.hugging_face import asked_attention, export_encoder

    if attention is None and (asked := asked_attention(source)):
        echo(f"attention: {asked}, as config.json asks")
    written = export_encoder(source, output, exporter=exporter, attention=attention, opset=opset, overwrite=force)
    echo(f"{written}: {written.stat().st_size / 1e6:.1f} MB, agrees with PyTorch")
