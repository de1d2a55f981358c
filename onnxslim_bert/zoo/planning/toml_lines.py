"""On which line of a TOML file each key and each item stands: tomllib reads values and forgets where they were."""

import tomllib
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

Place = tuple[str | int, ...]  # keys and indices from the top of the document: ("models", 0, "path")
CLOSERS = '"""', "'''", "]", "}"  # one of them is on the last line of what takes several lines
LONG = 100  # lines of an array on which its items are looked for


def lines_of(text: str, places: Iterable[Place]) -> dict[Place, int]:
    """The line, counted from 1, on which each of `places` is first mentioned in the valid TOML `text`.

    A place that the text does not have gets the line of the innermost place around it that is there, and one in an
    inline table the line of that table.

    Example: in "[a]\\nb = 1" the places ("a", "b") and ("a", "b", "c") are on line 2, and ("z",) is on line 1.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    starts = _starts(lines)
    return {place: _line(lines, starts, place) for place in places}


def _line(lines: list[str], starts: list[int], place: Place) -> int:
    """The line of a place: where that statement begins with which the text, read up to its end, has the place first.

    Found by bisection over `starts`, the indices of the lines at which statements begin. For an item of an array that
    takes several lines, it is the item's own line.
    """

    def held(count: int, closer: str = "") -> bool:
        return _holds("\n".join(lines[:count]) + closer, place)

    while not held(len(lines)):
        place = place[:-1]
    ends = [*starts[1:], len(lines)]
    index = bisect_left(ends, True, key=held)
    start, end = starts[index], ends[index]
    while place and isinstance(place[-1], str):
        place = place[:-1]
    if not held(start):  # an item of an array that begins here
        for count in range(start + 1, min(end, start + LONG) + 1):
            if any(held(count, closer) for closer in ("", "\n]", "\n]]")):
                return count
    return start + 1


def _starts(lines: list[str]) -> list[int]:
    """The index of the line with which each statement begins: a header, a key with its value, or nothing."""
    starts = [0]
    for end, line in enumerate(lines, 1):
        if end == starts[-1] + 1 or any(closer in line for closer in CLOSERS):
            with suppress(tomllib.TOMLDecodeError):
                tomllib.loads("\n".join(lines[starts[-1] : end]))
                starts.append(end)
    return starts[:-1]


def _holds(text: str, place: Place) -> bool:
    """Whether `text` is TOML and has `place`."""
    with suppress(ValueError, LookupError, TypeError):
        found: Any = tomllib.loads(text)
        for key in place:
            found = found[key]
        return True
    return False
