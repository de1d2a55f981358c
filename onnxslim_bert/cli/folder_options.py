"""The options of commands that write a model into a folder, where a program finds it, and its report into another."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxslim_bert.cli.options import Command, refuse_ignored, taken_together
from onnxslim_bert.cli.screen import echo

if TYPE_CHECKING:
    from onnxslim_bert.job.job import Job
    from onnxslim_bert.job.model_folder import FolderJob
    from onnxslim_bert.job.report import Report

LAYOUTS = ["transformers.js", "sentence-transformers", "optimum", "fastembed", "vespa"]  # `job.folder_files.LAYOUTS`
OPTIONS = ["layout", "name", "keep_weights"]


@dataclass(frozen=True)
class FolderOptions:
    """Where in a folder the model goes, what else is copied there, and the folder of runs that gets the report."""

    layout: str | None
    name: str | None
    keep_weights: bool
    save_metrics: Path | None

    def job(self, job: "Job") -> "FolderJob":
        """The job on folders that the options describe."""
        from onnxslim_bert.job.folder_files import model_place
        from onnxslim_bert.job.model_folder import FolderJob

        return FolderJob(job, model_place(self.layout, self.name), self.keep_weights)

    def check_metrics(self) -> None:
        """Raise an error where --save-metrics could not be written."""
        from onnxslim_bert.job.tracking import check_tracking

        if self.save_metrics is not None:
            check_tracking(self.save_metrics)

    def keep_metrics(self, report: "Report") -> None:
        """Add the report to the folder of runs, where there is one, and say so."""
        from onnxslim_bert.job.tracking import save_run

        if self.save_metrics is not None:
            echo(f"{save_run(self.save_metrics, report)}: the report as a run of MLflow", err=True)


def written_as_folder(command: Command) -> Command:
    """Give a command the options on folders; it takes them as one parameter `placed`."""
    options = (
        click.option(
            "--layout",
            type=click.Choice(LAYOUTS),
            help="The program that is to find the model in the folder  [default: it is onnx/model_quantized.onnx]",
        ),
        click.option("--name", metavar="FILE", help="The model's name there, like model_qint8_avx512_vnni.onnx."),
        click.option("--keep-weights", is_flag=True, help="Copy MODEL's own weights to the folder, too."),
        click.option(
            "--save-metrics",
            type=click.Path(path_type=Path),
            metavar="FOLDER",
            help="Add the report as a run to a folder of MLflow runs, which is made where there is none.",
        ),
    )
    return taken_together("placed", FolderOptions, options)(command)


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


def told(folder: "FolderJob") -> Iterator[str]:
    """What a user should know of a written folder: what it does not hold."""
    weights = folder.left_out()
    if weights:
        listed = ", ".join(weights[:4]) + f" and {len(weights) - 4} more" * (len(weights) > 4)
        yield f"weights that stay in {folder.job.source} alone: {listed} (--keep-weights copies them)"
