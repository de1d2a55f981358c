"""The options of commands that write a model into a folder, where a program finds it, and its report into another."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxslim_bert.cli.options import refuse_ignored

if TYPE_CHECKING:
    from onnxslim_bert.job.job import Job
    from onnxslim_bert.job.model_folder import FolderJob

LAYOUTS = ["transformers.js", "sentence-transformers", "optimum", "fastembed", "vespa"]  # `job.folder_files.LAYOUTS`
OPTIONS = ["layout", "name", "keep_weights"]


def written_as_folder(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `layout`, `name` and `keep_weights`, and `save_metrics`."""
    metrics = click.option(
        "--save-metrics",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Add the report as a run to a folder of MLflow runs, which is made where there is none.",
    )
    layout = click.option(
        "--layout",
        type=click.Choice(LAYOUTS),
        help="The program that is to find the model in the folder  [default: it is onnx/model_quantized.onnx]",
    )
    name = click.option("--name", metavar="FILE", help="The model's name there, like model_qint8_avx512_vnni.onnx.")
    weights = click.option("--keep-weights", is_flag=True, help="Copy MODEL's own weights to the folder, too.")
    return layout(name(weights(metrics(command))))


def writes_folder(model: Path, output: Path | None, in_place: bool) -> bool:
    """Whether a folder is to be written: MODEL is one, and OUTPUT names no .onnx file.

    Raises UsageError for an option that then has no effect.
    """
    if model.is_dir() and (output is None or output.suffix != ".onnx" or output.is_dir()):
        if in_place:
            raise click.UsageError("--in-place replaces a file; for a folder, -o MODEL adds the new model to it")
        return True
    refuse_ignored(OPTIONS, "when a file is written; give a folder as MODEL and as OUTPUT")
    return False


def in_folder(job: "Job", layout: str | None, name: str | None, keep_weights: bool) -> "FolderJob":
    """The job on folders that the options describe."""
    from onnxslim_bert.job.folder_files import model_place
    from onnxslim_bert.job.model_folder import FolderJob

    return FolderJob(job, model_place(layout, name), keep_weights)


def told(folder: "FolderJob") -> Iterator[str]:
    """What a user should know of a written folder: what it does not hold."""
    weights = folder.left_out()
    if weights:
        listed = ", ".join(weights[:4]) + f" and {len(weights) - 4} more" * (len(weights) > 4)
        yield f"weights that stay in {folder.job.source} alone: {listed} (--keep-weights copies them)"
