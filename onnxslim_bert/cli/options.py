"""What the options of several commands share."""

import math
from collections.abc import Iterable
from typing import Any

import click
from click.core import ParameterSource

COUNT = click.IntRange(min=1)
SEED = click.IntRange(min=0)
THREADS = click.IntRange(min=1, max=1024)


TARGETS = ["cpu", "openvino", "qnn", "coreml", "nnapi"]  # those of `targets.table`, which is slow to import


class Finite(click.FloatRange):
    """A number in a range; NaN, which is in every range, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def refuse_ignored(names: Iterable[str], reason: str) -> None:
    """Raise UsageError when a parameter in `names` was given, which would do nothing for this `reason`."""
    ctx = click.get_current_context()
    options = {param.name: param.opts[-1] for param in ctx.command.params}
    for name in names:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{options[name]} does nothing {reason}", ctx)


def counts(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int] | None:
    """Positive integers with commas between them."""
    parts = value.split(",") if value is not None else None
    if parts and not all(part.strip().isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"'{value}' is no list of positive integers like 1,8", ctx, param)
    return [int(part) for part in parts] if parts else None
