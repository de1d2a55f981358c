"""The options that say how a model reads texts and is judged, where the program cannot find that out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from onnxslim_bert.cli.options import SEED, THREADS
from onnxslim_bert.proof.tasks.table import TASKS


def reads_texts(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `inputs`: inputs of the model by role, as text for `role_names.parse_named`; "" to find out."""
    option = click.option(
        "--inputs",
        default="",
        callback=_checked,
        metavar="ids=NAME,...",
        help="Inputs by role (ids, mask, types), where neither the graph nor their names say what they take.",
    )
    return option(command)


def judges(command: Callable[..., Any]) -> Callable[..., Any]:
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


def works_on_rows(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all options on reading rows and working on them that `quantize` and `slim` share.

    They are tokenizer, inputs, task, output_name, text_columns, label_column, seed and threads.
    """
    options = (
        click.option(
            "--tokenizer", type=click.Path(path_type=Path), help="Folder or tokenizer.json  [default: MODEL's folder]"
        ),
        reads_texts,
        judges,
        click.option("--text-column", "text_columns", multiple=True, help="Name one or two text columns of a file."),
        click.option("--label-column", help="Name the label column of a file."),
        click.option(
            "--seed", type=SEED, default=0, show_default=True, help="Of the samples, the ids timed and the intervals."
        ),
        click.option("--threads", type=THREADS, default=1, show_default=True, help="Of each session."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def clamped(asked: int, used: int) -> Iterator[str]:
    """A line to print when the user gave a `--max-length` that is more than the model serves; else none."""
    given = click.get_current_context().get_parameter_source("max_length") is ParameterSource.COMMANDLINE
    if given and used < asked:
        yield f"--max-length {asked}: the model serves {used} tokens a row, so rows were cut to {used}"


def _checked(ctx: click.Context, param: click.Parameter, value: str) -> str:
    from onnxslim_bert.model.role_names import parse_named

    parse_named(value)
    return value
