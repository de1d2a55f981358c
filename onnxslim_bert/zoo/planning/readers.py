"""How the values of a zoo file are read: each reader takes what TOML holds and says what was needed instead."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from onnxslim_bert.proof.gates import parse_size
from onnxslim_bert.rewriting.options import nearest

Reader = Callable[[Any], Any]  # raises ValueError with what was needed, or DataError
UNITS = {"s": 1, "min": 60, "h": 3600}
LONGEST_NAME = 100  # bytes: two names and more make a file's, which has up to 255
WIDEST = 2**63 - 1  # as TOML has it
LARGEST, LONGEST = 10**18, 10**9  # bytes and seconds, which databases and clocks can hold
FILE_NAME = re.compile(r"\w([\w.-]*[\w-])?")  # names of models and recipes are names of files, too
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def whole(least: int, most: int = WIDEST) -> Reader:
    """A whole number in a range."""

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a whole number {_range(least, most)}")
        return value

    return read


def number(least: float, most: float) -> Reader:
    """A number in a range."""

    def read(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a number {_range(least, most)}")
        return float(value)

    return read


def choice(known: Iterable[str]) -> Reader:
    """One of several words."""
    words = tuple(known)

    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)}{nearest(str(value), words)}")
        return str(value)

    return read


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def words(value: Any) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a string that is not empty")
    return value


def file_name(value: Any) -> str:
    """A name that can be that of a file everywhere."""
    if not isinstance(value, str) or not FILE_NAME.fullmatch(value) or len(value.encode()) > LONGEST_NAME:
        letters = "letters, digits, '_', '-' and '.', a letter or digit first, no '.' last"
        raise ValueError(f"a name of {letters}, of at most {LONGEST_NAME} bytes")
    if DEVICE.fullmatch(value):
        raise ValueError("another name: on Windows this one is a device")
    return value


def names(value: Any) -> tuple[str, ...]:
    """Strings, each once, at least one."""
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError('a list of names like ["one", "two"]')
    twice = [name for name in value if value.count(name) > 1]
    if twice:
        raise ValueError(f"every name once: {twice[0]!r} is there twice, which is the same job twice")
    return tuple(value)


def columns(value: Any) -> tuple[str, ...]:
    """One or two columns of text."""
    given = names([value] if isinstance(value, str) else value)
    if len(given) > 2:
        raise ValueError("one or two names of columns")
    return given


def lengths(value: Any) -> tuple[int, ...]:
    """Tokens in a row: one number, or several."""
    given = value if isinstance(value, list) and value else [value]
    try:
        return tuple(map(whole(1), given))
    except ValueError:
        raise ValueError("a whole number of at least 1, or a list of them") from None


def size(value: Any) -> int:
    """Bytes, as a number or with a unit."""
    try:
        nbytes: int = parse_size(value) if isinstance(value, str) else whole(1)(value)
    except OverflowError:
        nbytes = LARGEST + 1
    if not 1 <= nbytes <= LARGEST:
        raise ValueError("a size of at least 1 byte and at most 1 EB")
    return nbytes


def duration(value: Any) -> float:
    """Seconds."""
    match = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*({'|'.join(UNITS)})", value.strip()) if isinstance(value, str) else None
    seconds = float(match[1]) * UNITS[match[2]] if match else value
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds <= LONGEST:
        raise ValueError('a time like "90s", "30min", "1.5h", or seconds as a number')
    return float(seconds)


def _range(least: float, most: float) -> str:
    return f"of at least {least:g}, in 64 bits" if most == WIDEST else f"from {least:g} to {most:g}"
