"""Multiple choice: rows of a context with several endings, one of which is right.

Read are numbered or lettered columns (SWAG's ending0 to ending3, COPA's choice1 and choice2, PIQA's sol1 and sol2,
MedMCQA's opa to opd; A, B, C and D beside a question and its answer, as tables of MMLU have them) and lists in one
column (HellaSwag's endings, RACE's options, the choices of CommonsenseQA and ARC with their own labels).
Zellers et al. 2018, https://arxiv.org/abs/1808.05326
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.columns import LABEL_COLUMNS
from onnxslim_bert.calibration.files import Columns
from onnxslim_bert.errors import DataError, shown

LISTS = ("endings", "choices", "options")
NUMBERED = re.compile(r"(?:ending|choice|option|sol|answer|op)[_ ]?(\d|[a-h])")
LETTERS = "abcdefgh"
# The first that is there is the context; the header, where there is one, begins each of its endings.
CONTEXTS = ("sent1", "ctx", "article", "premise", "context", "question", "goal", "sentence", "text")
HEADERS = {"sent1": "sent2", "article": "question", "context": "question", "premise": "question"}
ANSWERS = ("label", "answerkey", "answer", "correct", "cop", *LABEL_COLUMNS)


class Choices(NamedTuple):
    """texts: the context and the endings of each row. labels: the right ending, int64 [rows]. notes: of rows with fewer
    endings than others."""

    texts: tuple[tuple[str, ...], ...]
    labels: Array | None
    notes: tuple[str, ...]


def find_choices(columns: Columns, labelled: str | None, source: str) -> Choices | None:
    """The rows of `columns` where these hold endings; None where they do not.

    Rows may have different numbers of endings: numbered columns are empty behind a row's last one. labelled: the column
    of right answers, by default the first known one: the number of an ending from 0 up, a letter, its own label
    (`{"label": ["A", "B"], "text": [...]}`), or its text. Labels that are empty or -1 in every row are held back.
    Raises DataError for rows without a context, with one ending, or with an answer that is none.
    """
    by_case = {column.lower(): column for column in columns}
    numbered = sorted(name for name in by_case if NUMBERED.fullmatch(name)) or _lettered(by_case)
    one = next((by_case[name] for name in LISTS if name in by_case and _are_lists(columns[by_case[name]])), None)
    if one is None and len(numbered) < 2:
        return None
    context = next((name for name in CONTEXTS if name in by_case), None)
    if context is None:
        raise DataError(f"{source}: endings, but no context in {list(columns)}: needed one of {', '.join(CONTEXTS)}")
    listed = columns[one] if one else list(zip(*(columns[by_case[name]] for name in numbered), strict=True))
    header = by_case.get(HEADERS.get(context, ""))
    begun = columns[header] if header else [""] * len(listed)
    endings = [_texts(given, f"{source}, row {row}") for row, given in enumerate(listed, 1)]
    texts: list[tuple[str, ...]] = []
    for row, (said, start, given) in enumerate(zip(columns[by_case[context]], begun, endings, strict=True), 1):
        if not isinstance(said, str) or not said.strip():
            raise DataError(f"{source}, row {row}: '{context}' is {shown(said)}: needed a context")
        texts.append((said, *(f"{start} {ending}".strip() for ending in given)))
    column = labelled or next((by_case[name] for name in ANSWERS if name in by_case), None)
    labels = None if column is None else _labels(columns, column, listed, endings, source)
    return Choices(tuple(texts), labels, tuple(_fewer([len(given) for given in endings])))


def _fewer(counts: Sequence[int]) -> Iterator[str]:
    """A line on rows with fewer endings than others."""
    most = max(counts, default=0)
    fewer = sum(count < most for count in counts)
    if fewer:
        yield f"{fewer} of {len(counts)} questions have fewer endings than {most}, down to {min(counts)}"


def _are_lists(values: Sequence[Any]) -> bool:
    return all(isinstance(value, list) or (isinstance(value, dict) and "text" in value) for value in values)


def _texts(given: Any, place: str) -> list[str]:
    """The endings of a row, two or more."""
    endings = given.get("text") if isinstance(given, dict) else given
    if isinstance(endings, tuple):  # of numbered columns: those of a row with fewer endings are empty at the end
        endings = [*endings]
        while endings and endings[-1] in ("", None):
            endings.pop()
    if not isinstance(endings, list) or not all(isinstance(ending, str) and ending for ending in endings):
        raise DataError(f"{place}: endings are {shown(given)}: needed a list of texts")
    if len(endings) < 2:
        raise DataError(f"{place}: {len(endings)} endings: needed at least 2")
    return endings


def _lettered(names: Collection[str]) -> list[str]:
    """The columns a, b and so on of a question whose answer is a column, too; none of other tables."""
    if "question" not in names or not any(name in names for name in ANSWERS):
        return []
    return list(takewhile(lambda letter: letter in names, LETTERS))


def _labels(
    columns: Columns, column: str, listed: Sequence[Any], texts: Sequence[list[str]], source: str
) -> Array | None:
    """The right ending of each row, by the first way of naming one that holds in all: its own label, its number from 0
    up or from 1 up, its letter, or its text. listed: what the file gives as endings; texts: these as texts."""
    if column not in columns:
        raise DataError(f"{source}: no column '{column}': its columns are {', '.join(columns)}")
    answers = [str(value).strip() if value is not None else "" for value in columns[column]]
    if all(answer in ("", "-1") for answer in answers):
        return None
    own = [[str(name) for name in given.get("label", ())] if isinstance(given, dict) else [] for given in listed]
    ways = (
        [*map(_places, own)],
        [_places(map(str, range(len(endings)))) for endings in texts],
        [_places(map(str, range(1, len(endings) + 1))) for endings in texts],
        [_places(LETTERS.upper()[: len(endings)]) for endings in texts],
        [_places(endings) for endings in texts],
    )
    held = [[answer in places for answer, places in zip(answers, way, strict=True)] for way in ways]
    best = max(range(len(ways)), key=lambda way: (all(held[way]), -way if all(held[way]) else sum(held[way])))
    if not all(held[best]):
        row = held[best].index(False)
        needed = f"one of {', '.join(own[row])}" if own[row] else f"a number from 0 to {len(texts[row]) - 1}"
        raise DataError(f"{source}, row {row + 1}: '{column}' is {shown(answers[row])}: needed {needed}")
    return np.array([places[answer] for answer, places in zip(answers, ways[best], strict=True)], np.int64)


def _places(names: Iterable[str]) -> dict[str, int]:
    """The place of each name; of equal ones the first."""
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        places.setdefault(name, place)
    return places
