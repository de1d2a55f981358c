"""The right answers of rows that need more than one number: tags of words, answers in a passage, sets of labels."""

import ast
import io
import json
import tokenize
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from onnxslim_bert.calibration.columns import SCORES, are_decimals, label_column
from onnxslim_bert.calibration.declared import names_in
from onnxslim_bert.calibration.files import Columns
from onnxslim_bert.errors import DataError, shown
from onnxslim_bert.wording import plural

WORDS = ("tokens", "words")
TAGS = ("ner_tags", "tags", "pos_tags", "chunk_tags", "labels", "label")
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
    names: tuple[str, ...] = ()


def find_structured(columns: Columns, labelled: str | None, source: str) -> Structured | None:
    """The rows of `columns` that are words with tags, or questions on passages; None for plain texts."""
    by_case, given = {column.lower(): column for column in columns}, columns
    known = {by_case[name] for name in (*WORDS, *TAGS, *ANSWERS) if name in by_case} | ({labelled or ""} & {*columns})
    columns = {**columns, **{name: _structures(columns[name], f"{source}: '{name}'") for name in known}}
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
        return Structured(
            "words", tuple(texts[place] for place in kept), gold, notes, names_in(given.get(tags or "", ()))
        )
    answers = labelled or next((by_case[name] for name in ANSWERS if name in by_case), None)
    if answers is not None and answers in columns and {"question", "context"} <= by_case.keys():
        pairs = zip(columns[by_case["question"]], columns[by_case["context"]], strict=True)
        gold = tuple(_strings(_texts(row), answers, source, n) for n, row in enumerate(columns[answers], 1))
        gold = None if all(row is None for row in columns[answers]) else gold
        return Structured("passages", tuple((str(question), str(context)) for question, context in pairs), gold)
    return None


def find_sets(columns: Columns, column: str | None, source: str) -> tuple[tuple[str, ...], ...] | None:
    """The set of labels that hold in each row, from a `column` of lists; None when there is no column, or no lists.

    A list holds the labels, or 0 or 1 for each class of the model. Tables hold lists as text: ["toxic", "insult"], or
    toxic|insult, where a row may be empty. Raises DataError for a list of anything but words or whole numbers.
    """
    if column is None:
        return None
    values = columns[column] if _are_lists(columns[column]) else _written_lists(columns[column], column, source)
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


def _written_lists(values: Sequence[Any], column: str, source: str) -> list[list[Any]] | None:
    """The lists that texts are, as JSON or Python write them, or as labels with a mark between.

    A mark parts labels where these come in several combinations; None where there is none. Raises DataError where 2,27
    may be a number as well.
    """
    if not all(value is None or isinstance(value, str) for value in values):
        return None
    written = [value or [] for value in _structures([value or "" for value in values], f"{source}: '{column}'")]
    if _are_lists(written):
        return written if any(written) else None
    texts = [(value or "").strip() for value in values]
    for mark in MARKS:
        rows = [[label for part in text.split(mark) if (label := part.strip())] for text in texts]
        labels = {label for row in rows for label in row}
        if any(len(row) > 1 for row in rows) and len(labels) < len({*texts} - {""}):
            return None if mark == "," and are_decimals(texts) and _are_numbers(rows, column, source) else rows
    return None


def _are_numbers(rows: Sequence[Sequence[str]], column: str, source: str) -> bool:
    """Whether cells parted at their commas were numbers with decimals: their parts tell it, else the column's name.

    Raises DataError where neither does.
    """
    if not all(_in_order(row) for row in rows) or column.lower() in SCORES:
        return True
    if column.lower() != "labels":
        example = next(",".join(row) for row in rows if len(row) > 1)
        raise DataError(
            f"{source}: '{column}' holds {shown(example)}, which may be one number or two labels: needed a decimal "
            "point, or labels parted by |"
        )
    return False


def _in_order(row: Sequence[str]) -> bool:
    """Whether these may be the numbers of labels that hold together: each written once, the least first."""
    return all(part == str(int(part)) for part in row) and all(int(a) < int(b) for a, b in pairwise(row))


def _structures(values: Sequence[Any], place: str) -> Sequence[Any]:
    """`values`; where all that are not empty are texts of lists or objects, as JSON or Python write them, these.

    An empty text is then None. Raises DataError for lists that hold texts with nothing between.
    """
    texts = [value.strip() for value in values if isinstance(value, str)]
    if (
        len(texts) < len(values)
        or not any(texts)
        or not all(text[0] + text[-1] in ("[]", "{}") for text in texts if text)
    ):
        return values
    read = [_structure(text, place) if text else None for text in texts]
    return (
        read if all(isinstance(value, list | dict) for value, text in zip(read, texts, strict=True) if text) else values
    )


def _structure(text: str, place: str) -> Any:
    """What JSON, or Python, writes as `text`; None where neither does."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            read = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    marks = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type != tokenize.NL]
    if any(before == after == tokenize.STRING for before, after in pairwise(marks)):  # which Python reads as one text
        raise DataError(f"{place} holds lists as numpy prints them, without commas: needed lists as JSON")
    return read


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
    """The answers of one row as a list, empty for none: from {"text": [...]}, as SQuAD is on the hub, from a list of
    texts or of objects with a text, or from a text."""
    if isinstance(value, dict):
        return _texts(value.get("text", False))
    if isinstance(value, list):
        found = [each.get("text") if isinstance(each, dict) else each for each in value]
        return [each for each in found if not isinstance(each, str) or each.strip()]
    return [] if value is None or value == "" or str(value).isspace() else [value] if isinstance(value, str) else value


def _strings(value: Any, column: str, source: str, row: int) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str | int) for each in value):
        raise DataError(f"{source}, row {row}: '{column}' is {shown(value)}: needed a list of words or numbers")
    return tuple(map(str, value))
