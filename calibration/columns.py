"""Columns of a data file: which hold texts and which labels, and what their values must be."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.declared import names_in
from onnxslim_bert.calibration.files import Columns
from onnxslim_bert.errors import DataError, shown
from onnxslim_bert.model.model_config import UNNAMED

# The first entry whose names are all present wins, whatever their case: pairs come before single texts.
TEXT_COLUMNS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "context"),
    ("question", "passage"),
    ("query", "passage"),
    ("query", "document"),
    ("query", "doc"),
    ("query", "text"),
    ("query", "positive"),
    ("anchor", "positive"),
    ("sentence_a", "sentence_b"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("#1 string", "#2 string"),
    ("sentence",),
    ("text",),
    ("review",),
    ("content",),
    ("question",),
    ("query",),
    *((name,) for name in ("tweet", "comment_text", "comment", "utterance", "document", "passage")),
)
MOST_CLASSES = 1 << 31
DECIMAL = re.compile(r"[+-]?\d+(?:,\d+)?")  # a number as written where decimals have a comma
SCORES = ("score", "similarity_score", "similarity", "relatedness_score", "quality", "relevance")
LABEL_COLUMNS = ("label", "labels", *SCORES, "gold_label", "is_duplicate", "target", "relevant", "sentiment", "class")
UNJUDGED = "-"  # the label of SNLI's pairs on which nobody agreed


@dataclass(frozen=True)
class Classes:
    """Labels that are classes: numbers from 0 to len(names) - 1, or the names; without names, any number from 0 up."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scores:
    """Labels that are scores: numbers from `low` to `high`."""

    low: float = -math.inf
    high: float = math.inf


def find_texts(
    columns: Columns, names: Sequence[str] | None, source: str, most: int = 2
) -> tuple[tuple[str, ...], ...]:
    """The rows of text, `most` strings each at most, from the columns `names` or from the first known ones."""
    chosen = known_texts(columns, names, source)
    if not 1 <= len(chosen) <= most:
        raise DataError(
            f"{source}: columns {list(columns)}: cannot tell the texts: name one or two with --text-column; where the "
            "first line is a row, put a line of names before it, like text and label"
        )
    for name in chosen:
        for row, value in enumerate(columns[name], 1):
            if not isinstance(value, str):
                raise DataError(f"{source}, row {row}: '{name}' is {shown(value)}: needed a string")
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise DataError(f"{source}, row {row}: '{name}' holds half of a surrogate pair: needed text") from error
    return tuple(zip(*(columns[name] for name in chosen), strict=True))


def known_texts(columns: Columns, names: Sequence[str] | None, source: str) -> tuple[str, ...]:
    """The columns `names`, or the first known ones that hold texts; () without any."""
    return _named(columns, names, source) if names else _known(columns)


def are_queries(columns: Columns) -> bool:
    """Whether the texts, as found by name, are queries and passages."""
    return any(name.lower() == "query" for name in _known(columns)) and len(_known(columns)) == 2


def find_labels(columns: Columns, name: str | None, kind: Classes | Scores | None, source: str) -> Array | None:
    """Labels [rows] as int64 classes or float32 scores, from column `name` or the first known one; None without one.

    kind: what the labels are; without it `kind_of` decides. Examples: 0, 1, 1 are classes; 0, 1, 1.5 are scores; yes,
    no, no are the classes 1, 0, 0, numbered in the order of the alphabet.
    Labels that are all empty, or all -1, count as none: that is how GLUE marks rows whose labels are held back. Raises
    DataError for a label that `kind` does not allow, and for a row without one.
    """
    chosen = label_column(columns, name, source)
    if chosen is None:
        return None
    values = columns[chosen]
    missing = [row for row, value in enumerate(values, 1) if value is None or value == "" or str(value).isspace()]
    if len(missing) == len(values):
        return None
    if missing:
        raise DataError(f"{source}, row {missing[0]}: no label: needed one in every row, or in none")
    kind = kind or kind_of(values)
    numbers = [_number(value, kind, f"{source}, row {row}") for row, value in enumerate(values, 1)]
    if all(number == -1 for number in numbers):
        return None
    for row, number in enumerate(numbers, 1):
        _check_range(number, kind, f"{source}, row {row}")
    return np.array(numbers, np.float32 if isinstance(kind, Scores) else np.int64)


def label_column(columns: Columns, name: str | None, source: str) -> str | None:
    """The column that holds the labels: `name`, or the first known one; None without one."""
    by_case = {column.lower(): column for column in columns}
    known = [by_case[column] for column in LABEL_COLUMNS if column in by_case]
    return next(iter(_named(columns, [name], source) if name else known), None)


def kind_of(values: Sequence[Any]) -> Classes | Scores:
    """The kind of labels, told from their values: all words or all whole numbers are classes, all else are scores.

    Numbers for which the file declares names are those classes. LABEL_0, as transformers writes where nobody gave
    names, is the number 0; 4,5 is 4.5 where all are such numbers.
    """
    if declared := names_in(values):
        return Classes(declared)
    if all(_unnamed(value) is not None for value in values):
        return Classes()
    if are_decimals(values):
        return Scores()
    if all(isinstance(value, str) and value.strip() and not _is_number(value) for value in values):
        return Classes(tuple(sorted({value.strip() for value in values})))
    return Classes() if all(_is_whole(value) for value in values) else Scores()


def _named(columns: Columns, names: Sequence[str], source: str) -> tuple[str, ...]:
    for name in names:
        if name not in columns:
            raise DataError(f"{source}: no column '{name}': its columns are {', '.join(columns)}")
    return tuple(names)


def _known(columns: Columns) -> tuple[str, ...]:
    by_case = {column.lower(): column for column in columns}
    for names in TEXT_COLUMNS:
        if all(name in by_case for name in names):
            return tuple(by_case[name] for name in names)
    return ()


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and value.strip().lstrip("+-").isdecimal())


def are_decimals(values: Sequence[Any]) -> bool:
    """Whether all are numbers as written where decimals have a comma, and some have one."""
    return all(isinstance(value, str) and DECIMAL.fullmatch(value.strip()) for value in values) and "," in "".join(
        values
    )


def _unnamed(value: Any) -> str | None:
    """The digits of a label like LABEL_0; None of any other."""
    found = UNNAMED.fullmatch(value.strip()) if isinstance(value, str) else None
    return found and found[1]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(value: Any, kind: Classes | Scores, place: str) -> float:
    named = value.strip() if isinstance(value, str) else value
    if isinstance(kind, Classes) and named in kind.names:
        return float(kind.names.index(named))
    digits = _unnamed(value) if isinstance(kind, Classes) else None
    if isinstance(named, str) and "," in named and DECIMAL.fullmatch(named):
        digits = named.replace(",", ".")
    try:
        return float(value if digits is None else digits)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{place}: label {shown(value)} is not a number: needed {_describe(kind)}") from error


def _check_range(number: float, kind: Classes | Scores, place: str) -> None:
    if isinstance(kind, Scores):
        valid = math.isfinite(number) and kind.low <= number <= kind.high
    else:
        valid = number.is_integer() and 0 <= number < (len(kind.names) or MOST_CLASSES)
    if not valid:
        raise DataError(f"{place}: label {number:g} is out of range: needed {_describe(kind)}")


def _describe(kind: Classes | Scores) -> str:
    if isinstance(kind, Classes):
        return f"a class from 0 to {len(kind.names) - 1}" if kind.names else "a class number from 0 up"
    return f"a score from {kind.low:g} to {kind.high:g}" if math.isfinite(kind.high) else "a finite score"
