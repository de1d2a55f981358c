"""The right answers of rows that need more than one number: tags of words, answers in a passage, sets of labels."""

import ast
from collections.abc import Sequence
from typing import Any, NamedTuple

from onnxslim_bert.calibration.columns import LABEL_COLUMNS, are_decimals, label_column
from onnxslim_bert.calibration.files import Columns
from onnxslim_bert.errors import DataError, shown
from onnxslim_bert.wording import plural

WORDS = ("tokens", "words")
TAGS = ("ner_tags", "tags", "pos_tags", "chunk_tags", *LABEL_COLUMNS)
ANSWERS = ("answers", "answer")
MARKS = "|;,"  # between labels in a cell
HOLDS = {"0": False, "0.0": False, "False": False, "false": False, "1": True, "1.0": True, "True": True, "true": True}


class Structured(NamedTuple):
    """Rows of one form, with what is right for each.

    form: "words" or "passages". texts: the words of a sentence, or a question and its passage. gold: a tag for each
    word, or the texts that answer; None without labels. notes: of rows that were left out.
    """

    form: str
    texts: tuple[tuple[str, ...], ...]
    gold: tuple[tuple[str, ...], ...] | None
    notes: tuple[str, ...] = ()


def find_structured(columns: Columns, labelled: str | None, source: str) -> Structured | None:
    """The rows of `columns` that are words with tags, or questions on passages; None for plain texts."""
    by_case = {column.lower(): column for column in columns}
    words = next((by_case[name] for name in WORDS if name in by_case and _are_lists(columns[by_case[name]])), None)
    if words is not None:
        tags = labelled or next((by_case[name] for name in TAGS if name in by_case), None)
        if tags is not None and tags not in columns:
            raise DataError(f"{source}: no column '{tags}': its columns are {', '.join(columns)}")
        texts = tuple(tuple(map(str, row)) for row in columns[words])
        gold = None if tags is None else tuple(_strings(row, tags, source, n) for n, row in enumerate(columns[tags], 1))
        for number, (row, right) in enumerate(zip(texts, gold or texts, strict=True), 1):
            if len(row) != len(right):
                raise DataError(f"{source}, row {number}: {len(row)} words and {len(right)} tags: needed a tag a word")
        kept = [place for place, row in enumerate(texts) if row]
        if not kept:
            raise DataError(f"{source}: no words: needed at least one sentence of them")
        notes = (f"{plural(empty, 'sentence')} without words left out",) if (empty := len(texts) - len(kept)) else ()
        gold = gold and tuple(gold[place] for place in kept)
        return Structured("words", tuple(texts[place] for place in kept), gold, notes)
    answers = labelled or next((by_case[name] for name in ANSWERS if name in by_case), None)
    if answers is not None and answers in columns and {"question", "context"} <= by_case.keys():
        pairs = zip(columns[by_case["question"]], columns[by_case["context"]], strict=True)
        gold = tuple(_strings(_texts(row), answers, source, n) for n, row in enumerate(columns[answers], 1))
        return Structured("passages", tuple((str(question), str(context)) for question, context in pairs), gold)
    return None


def find_sets(columns: Columns, column: str | None, source: str) -> tuple[tuple[str, ...], ...] | None:
    """The set of labels that hold in each row, from a `column` of lists; None when there is no column, or no lists.

    A list holds the labels, or 0 or 1 for each class of the model. Tables hold lists as text: ["toxic", "insult"], or
    toxic|insult, where a row may be empty. Raises DataError for a list of anything but words or whole numbers.
    """
    if column is None:
        return None
    values = columns[column] if _are_lists(columns[column]) else _written_lists(columns[column])
    if values is None:
        return None
    if _are_flags(values):
        return tuple(tuple(str(place) for place, holds in enumerate(row) if holds) for row in values)
    return tuple(_strings(row, column, source, number) for number, row in enumerate(values, 1))


def _are_flags(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether lists say 0 or 1 for each class; [0, 1] alone could be the labels 0 and 1, of which none comes twice."""
    values = [value for row in rows for value in row]
    sure = any(isinstance(value, float | bool) for value in values) or any(len({*row}) < len(row) for row in rows)
    return sure and len({*map(len, rows)}) == 1 and all(value in (0, 1) for value in values)


def _written_lists(values: Sequence[Any]) -> list[list[Any]] | None:
    """The lists that texts are, as JSON or Python write them, or as labels with a mark between.

    A mark parts labels where these come in several combinations; None where there is none.
    """
    if not all(value is None or isinstance(value, str) for value in values) or are_decimals(values):
        return None
    texts = [(value or "").strip() for value in values]
    if any(texts) and all(text[:1] == "[" and text[-1:] == "]" for text in texts if text):
        try:
            lists = [ast.literal_eval(text) if text else [] for text in texts]
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
        return lists if _are_lists(lists) else None
    for mark in MARKS:
        rows = [[label for part in text.split(mark) if (label := part.strip())] for text in texts]
        labels = {label for row in rows for label in row}
        if any(len(row) > 1 for row in rows) and len(labels) < len({*texts} - {""}):
            return rows
    return None


def find_flags(columns: Columns, labelled: str | None, source: str) -> tuple[tuple[str, ...], ...] | None:
    """The labels that hold in each row, from a column of 0 and 1 for each.

    labelled: their names, like "toxic,insult"; without it, and without a column of labels, all such columns of a table
    that has several. None where there are none, or one. Raises DataError for a column that is not there, or another
    value.
    """
    if not labelled and label_column(columns, None, source) is None:
        flags = [name for name, values in columns.items() if all(str(value) in HOLDS for value in values)]
        labelled = ",".join(flags)
    if not labelled or labelled in columns or "," not in labelled:
        return None
    names = [name.strip() for name in labelled.split(",")]
    if missing := [name for name in names if name not in columns]:
        raise DataError(f"{source}: no column '{missing[0]}': its columns are {', '.join(columns)}")
    for name in names:
        for number, value in enumerate(columns[name], 1):
            if str(value) not in HOLDS:
                raise DataError(f"{source}, row {number}: '{name}' is {shown(value)}: needed 0 or 1")
    rows = zip(*(columns[name] for name in names), strict=True)
    return tuple(tuple(name for name, value in zip(names, row, strict=True) if HOLDS[str(value)]) for row in rows)


def _are_lists(values: Sequence[Any]) -> bool:
    return all(isinstance(value, list) for value in values)


def _texts(value: Any) -> Any:
    """The answers of one row as a list: from {"text": [...]}, as SQuAD is on the hub, from a list or from a string."""
    if isinstance(value, dict):
        return value.get("text")
    return [value] if isinstance(value, str) else value


def _strings(value: Any, column: str, source: str, row: int) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str | int) for each in value):
        raise DataError(f"{source}, row {row}: '{column}' is {shown(value)}: needed a list of words or numbers")
    return tuple(map(str, value))
