"""`onnxslim zoo init`: a zoo file for the models in a folder."""

from pathlib import Path

import click

from onnxslim_bert.cli.progress import progress_bar
from onnxslim_bert.cli.screen import echo


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="zoo.toml",
    show_default=True,
    help="The file to write.",
)
@click.option(
    "--calib",
    default="reviews",
    show_default=True,
    help="Calibration texts: a GLUE name (its training split), a built-in set like `reviews`, or a file.",
)
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def init(folder: Path, output: Path, calib: str, force: bool) -> None:
    """Write a zoo file for the encoders in DIR and below.

    Files that are no encoder, are quantized already, were written by this program or lack a tokenizer are left out,
    with the reason in the file.

    \b
    onnxslim zoo init models
    onnxslim zoo init models --calib sst2 -o models/zoo.toml
    """
    from onnxslim_bert.graph.files import check_output, write_atomically
    from onnxslim_bert.zoo.planning.init import propose

    check_output(output, overwrite=force)
    with progress_bar() as progress:
        proposal = propose(folder, output, calib, progress)
    write_atomically(output, [proposal.text.encode()], overwrite=force)
    for item in proposal.left_out:
        echo(f"left out {item.path}: {item.reason}")
    models = len({job.source for job in proposal.plan.jobs})
    echo(f"{output} written: {models} model{'s' * (models != 1)}, calibrated on {calib}")
