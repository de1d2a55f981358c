"""A reader of tagged words in columns, as in the CoNLL tasks: a word a line, with blank lines between sentences."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxslim_bert.documents import read_lines
from onnxslim_bert.errors import DataError

DOCUMENT = "-DOCSTART-"
ENTITY = re.compile(r"O|[BIESLUM]-\S+")  # how tags of entities are written
FEWEST = 3  # lines that make a file of another name one of words
UNIVERSAL = 10  # columns of CoNLL-U; the fourth is the part of speech, the last says other things
Lines = Sequence[tuple[int, list[str]]]


def read_conll(path: Path) -> Mapping[str, Sequence[Any]]:
    """The sentences of a CoNLL file, as columns with a list for each sentence.

    The file has a word a line, with its columns parted by tabs, or by spaces where a line has no tab. `words` are the
    first column, or the second where the first counts them from 1 as in CoNLL-U; `tags` are the last, or the parts of
    speech of CoNLL-U's ten (https://universaldependencies.org/format.html). All columns are also there by their number
    from 1. Lines that begin with # and end with no tag are comments. Raises DataError for a line without a tag.
    """
    sentences = _sentences(_cells(path), path)
    counted = bool(sentences) and all(_counts(rows) for rows in sentences)
    if counted:  # CoNLL-U repeats words, as in 1-2 and 2.1, which have no tags of their own
        sentences = [[cells for cells in rows if cells[0].isdecimal()] for rows in sentences]
    width = min((len(cells) for rows in sentences for cells in rows), default=0)
    tags = 3 if counted and width == UNIVERSAL else -1
    places = {"words": int(counted), "tags": tags, **{str(place + 1): place for place in range(width)}}
    return {name: [[cells[place] for cells in rows] for rows in sentences] for name, place in places.items()}


def are_tagged(path: Path) -> bool:
    """Whether the lines of a file of any name are words with tags of entities."""
    lines = [cells for _, cells in _cells(path) if cells and cells[0] != DOCUMENT and not cells[0].startswith("#")]
    return len(lines) >= FEWEST and all(len(cells) > 1 and ENTITY.fullmatch(cells[-1]) for cells in lines)


def _cells(path: Path) -> Lines:
    """(number, cells) of each line; a blank line has none."""
    found: list[tuple[int, list[str]]] = []
    for number, line in enumerate(read_lines(path), 1):
        plain = line.strip(" \t")
        cells = plain.split("\t") if "\t" in plain else re.split(" +", plain)
        found.append((number, [cell.strip(" ") for cell in cells] if plain else []))
    return found


def _sentences(lines: Lines, path: Path) -> list[list[list[str]]]:
    """The cells of each word, sentence by sentence, without comments and marks between documents."""
    tags = {cells[-1] for _, cells in lines if len(cells) > 1 and not cells[0].startswith("#")}
    found: list[list[list[str]]] = [[]]
    for number, cells in lines:
        if not cells or cells[0] == DOCUMENT:
            found.append([])
        elif cells[0].startswith("#") and not (len(cells) > 1 and (cells[-1] in tags or ENTITY.fullmatch(cells[-1]))):
            continue
        elif len(cells) < 2:
            raise DataError(f"{path}, line {number}: one column: needed a word and its tag")
        else:
            found[-1].append(cells)
    return [rows for rows in found if rows]


def _counts(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first of three columns or more numbers the words of a sentence."""
    numbers = [cells[0] for cells in rows if cells[0].isdecimal()]
    return numbers == [str(place + 1) for place in range(len(numbers))] and bool(numbers) and min(map(len, rows)) > 2
