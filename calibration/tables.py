"""The rows of a table of columns: what each column is, told from names and values."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from onnxslim_bert.calibration import ranked
from onnxslim_bert.calibration.choices import find_choices
from onnxslim_bert.calibration.columns import (
    UNJUDGED,
    Classes,
    Scores,
    are_queries,
    find_labels,
    find_texts,
    kind_of,
    known_texts,
    label_column,
)
from onnxslim_bert.calibration.dataset import CHOICE, Dataset, Form, Purpose, metric_of
from onnxslim_bert.calibration.declared import names_in
from onnxslim_bert.calibration.files import Columns
from onnxslim_bert.calibration.gold import find_flags, find_sets, find_structured
from onnxslim_bert.errors import DataError
from onnxslim_bert.wording import plural

NUMBER_OF_ROW = re.compile(
    r"|.*\bid|.*_id|[qpd]id|ids?|idx|index|split|unnamed: 0"
)  # names of columns that number rows
MOST_NAMED = 5  # columns of a note
LABEL_MARKS = "\t|;,"  # before a label at the end of a line


def from_columns(
    source: str,
    purpose: Purpose,
    split: str,
    columns: Columns,
    kind: Classes | Scores | None,
    text_columns: Sequence[str] | None,
    labelled: str | None,
) -> Dataset:
    """The rows of `columns`, read from `source`. kind: of the labels, where the set is known; told from them when None.

    For calibration, labels that cannot be read are left out, unless their column was named (`labelled`).
    """
    split_of = Path(source).name, split
    if kind is None and text_columns is None and (found := find_structured(columns, labelled, source)):
        task = {"words": "tags", "passages": "answers"}[found.form]
        form: Form = "words" if found.form == "words" else "passages"
        return Dataset(
            *split_of,
            found.texts,
            None,
            None,
            form=form,
            gold=found.gold,
            task=task,
            notes=found.notes,
            names=found.names,
        )
    if kind is None and text_columns is None and (choices := find_choices(columns, labelled, source)):
        right = choices.labels
        return Dataset(*split_of, choices.texts, right, metric_of(right), task=CHOICE, notes=choices.notes)
    columns = columns if text_columns else ranked.in_pairs(columns, source)
    triplet = None if text_columns else ranked.triplets(columns)
    if triplet:
        texts, notes = find_texts(columns, triplet, source, most=3), _unread(columns, triplet)
        return Dataset(*split_of, texts, None, None, task="triplets", notes=notes)
    flags = find_flags(columns, labelled, source) if kind is None else None
    column = label_column(columns, labelled, source) if flags is None else None
    columns, notes = _judged(columns, column) if kind is None else (columns, ())
    chosen = known_texts(columns, text_columns, source)
    texts = find_texts(columns, chosen, source)
    if flags is not None:
        names = tuple(sorted({label for row in flags for label in row}))
        task = "multi-label" if labelled else ""  # columns that nobody named judge only a model of such labels
        return Dataset(*split_of, texts, None, None, names=names, gold=flags, task=task)
    if kind is None and text_columns is None:
        notes = (*notes, *_unread(columns, (*chosen, column)), *_marked(columns, source))
    may_lack = kind is None and purpose == "calibration" and not labelled
    try:
        gold = find_sets(columns, column, source) if kind is None else None
        if gold is not None:
            names = names_in(columns[column or ""]) or tuple(sorted({label for row in gold for label in row}))
            return Dataset(*split_of, texts, None, None, names=names, gold=gold, task="multi-label", notes=notes)
        guessed = kind is None
        if kind is None and column is not None:
            kind, guessed = kind_of(columns[column]), not names_in(columns[column])
        labels = find_labels(columns, labelled, kind, source)
    except DataError:
        if not may_lack:
            raise
        labels, guessed = None, False
    names = kind.names if isinstance(kind, Classes) else ()
    worded = guessed and names != ()
    rows = Dataset(*split_of, texts, labels, metric_of(labels), names=names, worded=worded, notes=notes)
    return replace(rows, task="reranking") if are_queries(columns) and _repeats(rows) else rows


def _judged(columns: Columns, column: str | None) -> tuple[Columns, tuple[str, ...]]:
    """The rows on whose label somebody agreed (SNLI's - says that nobody did), and a note on the others."""
    labels = [str(value).strip() for value in columns[column]] if column is not None else []
    kept = [row for row, label in enumerate(labels) if label != UNJUDGED]
    if not kept or len(kept) == len(labels):
        return columns, ()
    note = f"{plural(len(labels) - len(kept), 'row')} with the label {UNJUDGED} left out"
    return {name: [values[row] for row in kept] for name, values in columns.items()}, (note,)


def _unread(columns: Columns, read: Collection[str | None]) -> tuple[str, ...]:
    """A note on the columns that are neither texts nor labels, nor numbers of rows by their names."""
    others = [name for name in columns if name not in read and not NUMBER_OF_ROW.fullmatch(name.lower())]
    if not others:
        return ()
    more = ", ..." if len(others) > MOST_NAMED else ""
    taken = ", ".join(name for name in read if name)
    return (f"columns read: {taken}; not read: {', '.join(others[:MOST_NAMED])}{more} (--text-column, --label-column)",)


def _marked(columns: Columns, source: str) -> tuple[str, ...]:
    """A note on lines of a txt file that all end in a mark and one of a few words, which look like labels."""
    lines = columns.get("text", ()) if source.endswith(".txt") and len(columns) == 1 else ()
    for mark in LABEL_MARKS:
        ends = [line.rpartition(mark)[2].strip() for line in lines if mark in line]
        words = all(len(end.split()) < 2 for end in ends)
        if ends and len(ends) == len(lines) and words and len({*ends}) <= len(ends) / 2:
            found = f"each line ends in {mark!r} and one of {plural(len({*ends}), 'word')}"
            return (f"{found}, read as text: labels are read from tsv and csv files with a line of names",)
    return ()


def _repeats(dataset: Dataset) -> bool:
    """Whether a first text has several second ones, so that they can be ranked."""
    return dataset.labels is not None and dataset.is_pairs and len({row[0] for row in dataset.texts}) < len(dataset)
