"""How a model reads texts, where that is not to be found by itself."""

from collections.abc import Callable
from typing import Any

import click


def reads_texts(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `inputs`: what `role_names.parse_named` reads, the inputs that the user names by role."""
    return click.option(
        "--inputs",
        default="",
        callback=_checked,
        metavar="ids=NAME,...",
        help="Inputs by role (ids, mask, types), where neither the graph nor their names say what they take.",
    )(command)


def _checked(ctx: click.Context, param: click.Parameter, value: str) -> str:
    from onnxslim_bert.model.role_names import parse_named

    parse_named(value)
    return value
