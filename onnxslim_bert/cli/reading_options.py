"""The options that say how a model reads texts and is judged, where the program cannot find that out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from onnxslim_bert.cli.options import COUNT, SEED, THREADS, Command, taken_together
from onnxslim_bert.proof.tasks.table import TASKS

if TYPE_CHECKING:
    from onnxslim_bert.calibration.working import Working
    from onnxslim_bert.job.data import Sources
    from onnxslim_bert.progress import Progress


def reads_texts(command: Command) -> Command:
    """Give a command `inputs`: inputs of the model by role, as text for `role_names.parse_named`; "" to find out."""
    option = click.option(
        "--inputs",
        default="",
        callback=_checked,
        metavar="ids=NAME,...",
        help="Inputs by role (ids, mask, types, positions), where neither graph nor names say what they take.",
    )
    return option(command)


def judges(command: Command) -> Command:
    """Give a command `task`, what a model is judged as, a name in `TASKS`, and `output_name`; "" to find them out."""
    named = click.option(
        "--output-name",
        default="",
        metavar="NAME",
        help="The output that is judged, of several; of a reader of passages NAME,NAME for start and end.",
    )
    option = click.option(
        "--task",
        type=click.Choice(list(TASKS)),
        callback=lambda ctx, param, value: value or "",
        help="What the model is judged as  [default: what its outputs, config.json and the data say]",
    )
    return option(named(command))


@dataclass(frozen=True)
class RowOptions:
    """How rows are sampled, read and worked on, as the options say; "" and () leave it to the program to find out."""

    rows: int
    max_length: int
    tokenizer: Path | None
    inputs: str
    task: str
    output_name: str
    text_columns: tuple[str, ...]
    label_column: str | None
    seed: int
    threads: int

    def sources(self, calib: str | None, data: str | None, corpus: str | None = None, **more: Any) -> "Sources":
        """The data sets of these names; `more` are other fields of `Sources`."""
        from onnxslim_bert.job.data import Sources

        return Sources(
            calib,
            data,
            self.rows,
            self.tokenizer,
            self.text_columns,
            self.label_column,
            corpus,
            inputs=self.inputs,
            task=self.task,
            output=self.output_name,
            **more,
        )

    def working(self, progress: "Progress | None") -> "Working":
        """The settings of the work on them."""
        from onnxslim_bert.calibration.working import Working

        return Working(self.max_length, self.threads, self.seed, progress=progress)


def works_on_rows(rows: int) -> Callable[[Command], Command]:
    """Give a command the options on rows that those which write models share; it takes them as one parameter `reading`.

    rows: how many are calibrated on, unless the user says so.
    """
    options = (
        click.option("--rows", type=COUNT, default=rows, show_default=True, help="Calibration rows, sampled."),
        click.option("--max-length", type=COUNT, default=128, show_default=True, help="Tokens kept of a row."),
        click.option(
            "--tokenizer", type=click.Path(path_type=Path), help="Folder or tokenizer.json  [default: MODEL's folder]"
        ),
        reads_texts,
        judges,
        click.option("--text-column", "text_columns", multiple=True, help="Name one or two text columns of a file."),
        click.option("--label-column", help="Name the label column of a file; NAME,NAME,... where each holds 0 or 1."),
        click.option(
            "--seed", type=SEED, default=0, show_default=True, help="Of the samples, the ids timed and the intervals."
        ),
        click.option("--threads", type=THREADS, default=1, show_default=True, help="Of each session."),
    )
    return taken_together("reading", RowOptions, options)


def clamped(asked: int, used: int) -> Iterator[str]:
    """A line to print when the user gave a `--max-length` that is more than the model serves; else none."""
    given = click.get_current_context().get_parameter_source("max_length") is ParameterSource.COMMANDLINE
    if given and used < asked:
        yield f"--max-length {asked}: the model serves {used} tokens a row, so rows were cut to {used}"


def _checked(ctx: click.Context, param: click.Parameter, value: str) -> str:
    from onnxslim_bert.model.role_names import parse_named

    parse_named(value)
    return value
