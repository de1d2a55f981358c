"""On which line of a TOML file each key and each item stands: tomllib reads values and forgets where they were."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any, NamedTuple

Place = tuple[str | int, ...]  # keys and indices from the top of the document: ("models", 0, "path")

# Strings and comments come first: what is in them opens and closes nothing.
TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?!")'
    r"|'''.*?'''(?!')"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\[\]{},\n]"
    r"|[^\s\"'\#\[\]{},]+",
    re.DOTALL,
)


class Statement(NamedTuple):
    """A header, or a key with its value, from line `line`; items: the lines on which those of an array begin."""

    text: str
    line: int
    items: list[int]


def places(text: str) -> dict[Place, int]:
    """The line, counted from 1, of every place in the valid TOML `text`; of the first mention where there are several.

    What lies in an inline table stands where that table does.
    """
    found: dict[Place, int] = {(): 1}
    entries: dict[Place, int] = {}  # of arrays of tables, so far
    table: Place = ()
    for statement in _statements(text.replace("\r\n", "\n") + "\n"):
        document = tomllib.loads(statement.text)
        if statement.text.startswith("["):
            *above, name = _header(document)
            table = ()
            for key in above:
                table = _within((*table, key), entries)
            if statement.text.startswith("[["):
                entries[(*table, name)] = entries.get((*table, name), 0) + 1
            table = _within((*table, name), entries)
            for depth in range(1, len(table) + 1):
                found.setdefault(table[:depth], statement.line)
        else:
            for place, line in _walk(document, table, statement.line, statement.items):
                found.setdefault(place, line)
    return found


def line_of(found: dict[Place, int], place: Place) -> int:
    """The line of `place`, or of the nearest thing around it that was written."""
    while place not in found:
        place = place[:-1]
    return found[place]


def _statements(text: str) -> Iterator[Statement]:
    line, depth, start, awaits = 1, 0, -1, False
    first, items = 1, list[int]()
    for match in TOKEN.finditer(text):
        token = match[0]
        if token == "\n" and depth == 0 and start >= 0:
            yield Statement(text[start : match.start()], first, items)
            start, items = -1, []
        elif token[0] not in "\n#":
            if start < 0:
                start, first = match.start(), line
            if token in ("]", "}"):
                depth -= 1
            elif depth == 1 and awaits and token != ",":
                items.append(line)
                awaits = False
            if token in ("[", "{"):
                depth += 1
            awaits = awaits or (depth == 1 and token in ("[", ","))
        line += token.count("\n")


def _within(table: Place, entries: dict[Place, int]) -> Place:
    """`table`, or its last entry so far where it is an array of tables."""
    return (*table, entries[table] - 1) if table in entries else table


def _header(document: Any) -> list[str]:
    """The keys of `[a.b]`, from what tomllib makes of it alone."""
    keys = []
    while document:
        document = document[0] if isinstance(document, list) else document
        keys.extend(document)
        document = next(iter(document.values()), None)
    return keys


def _walk(value: Any, place: Place, line: int, items: list[int]) -> Iterator[tuple[Place, int]]:
    if place:
        yield place, line
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, (*place, key), line, items)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _walk(inner, (*place, index), items[index] if index < len(items) else line, [])
