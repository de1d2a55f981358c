"""Types and checks that the options of several commands share."""

import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from onnxslim_bert.errors import shown

Command = Callable[..., Any]
MOST = 10**9  # of what can be counted: rows, tokens, seconds


class Whole(click.IntRange):
    """A whole number from `min` up, for click; one that nothing can have so many of is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number: int = super().convert(value, param, ctx)
        if number > MOST:
            self.fail(f"{shown(value)} is more than {MOST:,}.", param, ctx)
        return number


COUNT = Whole(min=1)
SEED = click.IntRange(min=0)
THREADS = click.IntRange(min=1, max=1024)


TARGETS = ["cpu", "openvino", "qnn", "coreml", "nnapi"]  # those of `targets.table`, which is slow to import


class ModelFile(click.Path):
    """An ONNX file, for click; a folder stands for the ONNX file in it (`graph.model_folders.find_model`)."""

    def __init__(self, *, exists: bool = True) -> None:
        super().__init__(exists=exists, path_type=Path)
        self.name = "file"  # as messages call it

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from onnxslim_bert.graph.model_folders import find_model

        return find_model(Path(os.fspath(super().convert(value, param, ctx))))  # type: ignore[arg-type]


class Finite(click.FloatRange):
    """A number in a range, for click. NaN and infinity are refused: click's own range lets NaN pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def taken_together(
    name: str, made: Callable[..., Any], options: Sequence[Callable[[Command], Command]], names: Sequence[str] = ()
) -> Callable[[Command], Command]:
    """Give a command `options`, which it takes as one parameter `name`: what `made` makes of their values.

    names: of the values; those of the fields, when `made` is a dataclass.
    """
    names = names or [field.name for field in fields(made)]  # type: ignore[arg-type]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def given_one(**given: Any) -> Any:
            values = {one: given.pop(one) for one in names}
            return command(**given, **{name: made(**values)})

        decorated: Command = given_one
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def refuse_ignored(names: Iterable[str], reason: str) -> None:
    """Raise UsageError when the user gave one of the parameters `names`, which does nothing, for this `reason`.

    Example: reason "without --junit" and a given --force: "--force does nothing without --junit".
    """
    ctx = click.get_current_context()
    options = {param.name: param.opts[-1] for param in ctx.command.params}
    for name in names:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{options[name]} does nothing {reason}", ctx)


def refuse_all_but(names: Iterable[str], reason: str) -> None:
    """Raise UsageError when the user gave an option other than `names`: it does nothing, for this `reason`."""
    options = [param.name for param in click.get_current_context().command.params if isinstance(param, click.Option)]
    refuse_ignored([name for name in options if name is not None and name not in set(names)], reason)


def counts(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int] | None:
    """Positive integers from a text with commas between them: "1,8" is [1, 8]. Raises BadParameter for any other."""
    parts = value.split(",") if value is not None else None
    if parts and not all(part.strip().isdecimal() and len(part) < 100 and 0 < int(part) <= MOST for part in parts):
        raise click.BadParameter(f"{shown(value)} is no list of positive integers like 1,8", ctx, param)
    return [int(part) for part in parts] if parts else None
