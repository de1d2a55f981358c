"""The options of a pass: their types, and how they are written as text and read from it.

An option is a field of the pass's dataclass, of type bool, int, float, a Literal of strings or of numbers,
tuple[int, ...] (numbers of layers or widths, written 6/8/9), or Weight (a float, or auto).
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from onnxslim_bert.errors import PassError

Numbers = tuple[int, ...]
Weight = float | Literal["auto"]
"""A number, or the one that is usual for what the model does."""


def types_of(action: type) -> dict[str, Any]:
    """The type of each option of a pass, by name."""
    hints = get_type_hints(action)
    return {field.name: hints[field.name] for field in dataclasses.fields(action)}


def read_option(action: str, option: str, text: str, kind: Any) -> Any:
    """The value of an option of type `kind` that is written as `text`. Example: "6/8" is (6, 8).

    Raises PassError that names the pass `action` and the option.
    """
    given = f"{action}: {dashed(option)}={text!r}"
    if kind == Numbers:
        try:
            return tuple(_whole(part) for part in text.split("/")) if text else ()
        except ValueError:
            raise PassError(f"{action}: {dashed(option)}={text} needed whole numbers, like 4/1") from None
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise PassError(f"{given} is neither true nor false")
        return text.lower() == "true"
    if kind == Weight:
        return text if text == "auto" else read_option(action, option, text, float)
    if kind in (int, float):
        try:
            number = _whole(text) if kind is int else float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise PassError(f"{given} is not a {'whole ' * (kind is int)}number")
        return number
    by_text = {write_option(choice): choice for choice in get_args(kind)}
    if text not in by_text:
        raise PassError(f"{given} is not one of {', '.join(by_text)}{nearest(text, by_text)}")
    return by_text[text]


def _whole(text: str) -> int:
    """A whole number of 64 bits. Raises ValueError for any other text."""
    number = int(text)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{len(text)} digits")
    return number


def write_option(value: Any) -> str:
    """`value` as text that `read_option` reads back. Example: (6, 8) is "6/8", True is "true"."""
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_options(action: Any) -> None:
    """Raise PassError for an option of the pass `action` whose value is not of its type."""
    for option, kind in types_of(type(action)).items():
        value = getattr(action, option)
        given = f"{action.name}: {dashed(option)}={value!r}"
        if get_origin(kind) is Literal:
            if value not in get_args(kind):
                raise PassError(f"{given} is not one of {', '.join(map(write_option, get_args(kind)))}")
        elif kind == Weight:
            if value != "auto" and (not isinstance(value, (int, float)) or isinstance(value, bool)):
                raise PassError(f"{given} is neither a number nor auto")
        elif kind == Numbers:
            if not isinstance(value, tuple) or not all(type(number) is int for number in value):
                raise PassError(f"{given} is not a tuple of whole numbers")
        elif not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool) != (
            kind is bool
        ):
            raise PassError(f"{given} is not of type {kind.__name__}")


def check_each_once(action: str, option: str, numbers: Numbers, what: str = "a layer") -> None:
    """Raise PassError for numbers of `what`, counted from 0, of which one is negative or stands twice."""
    given = f"{action}: {dashed(option)}={write_option(numbers)}"
    if min(numbers, default=0) < 0:
        raise PassError(f"{given} needed whole numbers from 0, like 4/1")
    if len({*numbers}) < len(numbers):
        raise PassError(f"{given} names {what} twice")


def dashed(option: str) -> str:
    """The name of an option as it is written in a recipe."""
    return option.replace("_", "-")


def nearest(name: str, known: Iterable[str]) -> str:
    """ ", did you mean ...?" for the known name most like `name`, or nothing."""
    close = difflib.get_close_matches(name.lower(), list(known), 1, 0.5)
    return f", did you mean {close[0]!r}?" if close else ""
