"""The rows of a table of columns: what each column is, told from names and values."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onnxslim_bert.calibration import ranked
from onnxslim_bert.calibration.choices import find_choices
from onnxslim_bert.calibration.columns import (
    Classes,
    Scores,
    are_queries,
    find_labels,
    find_texts,
    kind_of,
    label_column,
)
from onnxslim_bert.calibration.dataset import CHOICE, Dataset, Form, Purpose, metric_of
from onnxslim_bert.calibration.files import Columns
from onnxslim_bert.calibration.gold import find_flags, find_sets, find_structured
from onnxslim_bert.errors import DataError


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
        return Dataset(*split_of, found.texts, None, None, form=form, gold=found.gold, task=task, notes=found.notes)
    if kind is None and text_columns is None and (choices := find_choices(columns, labelled, source)):
        right = choices.labels
        return Dataset(*split_of, choices.texts, right, metric_of(right), task=CHOICE, notes=choices.notes)
    columns = columns if text_columns else ranked.in_pairs(columns, source)
    triplet = None if text_columns else ranked.triplets(columns)
    if triplet:
        return Dataset(*split_of, find_texts(columns, triplet, source, most=3), None, None, task="triplets")
    texts = find_texts(columns, text_columns, source)
    if kind is None and (flags := find_flags(columns, labelled, source)) is not None:
        names = tuple(sorted({label for row in flags for label in row}))
        task = "multi-label" if labelled else ""  # columns that nobody named judge only a model of such labels
        return Dataset(*split_of, texts, None, None, names=names, gold=flags, task=task)
    column = label_column(columns, labelled, source)
    if kind is None and (gold := find_sets(columns, column, source)) is not None:
        names = tuple(sorted({label for row in gold for label in row}))
        return Dataset(*split_of, texts, None, None, names=names, gold=gold, task="multi-label")
    guessed = kind is None
    if kind is None and column is not None:
        kind = kind_of(columns[column])
    names = kind.names if isinstance(kind, Classes) else ()
    try:
        labels = find_labels(columns, labelled, kind, source)
    except DataError:
        if purpose == "evaluation" or labelled or not guessed:
            raise
        labels = None
    worded = guessed and names != ()
    rows = Dataset(*split_of, texts, labels, metric_of(labels), names=names, worded=worded)
    return replace(rows, task="reranking") if are_queries(columns) and _repeats(rows) else rows


def _repeats(dataset: Dataset) -> bool:
    """Whether a first text has several second ones, so that they can be ranked."""
    return dataset.labels is not None and dataset.is_pairs and len({row[0] for row in dataset.texts}) < len(dataset)
