"""Data sets to calibrate and evaluate on: GLUE's by name, a file by path, or one that is built in.

What is built in was written for this project and has the project's licence, Apache-2.0.
"""

import difflib
import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration import ranked
from onnxslim_bert.calibration.columns import (
    LABEL_COLUMNS,
    Classes,
    Scores,
    are_queries,
    find_labels,
    find_texts,
    kind_of,
    label_column,
)
from onnxslim_bert.calibration.files import Columns, read_columns, read_feeds
from onnxslim_bert.calibration.glue import GLUE, UNLABELLED, Task
from onnxslim_bert.calibration.gold import find_sets, find_structured
from onnxslim_bert.calibration.hub import find_file
from onnxslim_bert.calibration.tokenizer import PlacedRow
from onnxslim_bert.errors import DataError

Purpose = Literal["calibration", "evaluation"]
Form = Literal["texts", "words", "passages", "windows"]
RANKED = ("reranking", "retrieval")  # tasks whose rows are pairs of a query and a passage
ITSELF = ("fill-mask", "triplets")  # tasks whose texts themselves say what is right


# The built-in sets: their files, and what their labels are where the values do not say.
BUILT_IN: Mapping[str, tuple[str, Classes | Scores | None]] = {
    "tags": ("tags.jsonl", None),
    "answers": ("answers.jsonl", None),
    "similarity": ("similarity.jsonl", GLUE["stsb"].labels),
    "retrieval": ("retrieval.jsonl", None),
    "reviews": ("reviews.tsv", GLUE["sst2"].labels),
}
NAMES = ", ".join(BUILT_IN)


@dataclass(frozen=True)
class Dataset:
    """Rows of text or of ready model inputs, with or without labels.

    texts: strings of each row, what they are says `form`; empty when `feeds` are given.
    form: "texts", one or two a row; "words", those of a sentence; "passages", a question and what may answer it;
    "windows", the same with `encoded`, the tokens of one piece of the passage.
    labels: [rows] int64 classes or float32 scores.
    metric: by which the labels judge a model; None without labels.
    feeds: model inputs by name, each [rows, ...].
    names: of the classes, where they are known.
    worded: the file has names for labels; their numbers only follow the alphabet and may not be the model's.
    gold: what is right where it is no number: the tags of words, the answers in a passage, the labels that hold.
    task: what the model is to be judged as, a name in `proof.tasks.table.TASKS`; when empty, told from the model.
    pool: all passages that a query may find, where there are more than those of the rows.
    output: the model's output to be judged; when empty, told from the model.
    notes: what is to be said of the rows beside what they show.
    """

    name: str
    split: str
    texts: tuple[tuple[str, ...], ...]
    labels: Array | None
    metric: Task | None
    feeds: Mapping[str, Array] | None = None
    names: tuple[str, ...] = ()
    worded: bool = False
    form: Form = "texts"
    gold: tuple[tuple[str, ...], ...] | None = None
    task: str = ""
    encoded: tuple[PlacedRow, ...] = ()
    pool: tuple[str, ...] = ()
    output: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_labelled(self) -> bool:
        """Whether the data say what is right: they have labels or gold answers, or texts that say it themselves."""
        return self.labels is not None or self.gold is not None or self.task in ITSELF

    def __len__(self) -> int:
        return len(self.texts) if self.feeds is None else len(next(iter(self.feeds.values())))

    def fingerprint(self) -> str:
        """sha256 over rows and labels, in hexadecimal: the same for the same data under any name."""
        digest = hashlib.sha256()
        for row in self.texts:
            digest.update(json.dumps(row).encode())
        for right in (*(self.gold or ()), *self.pool):
            digest.update(json.dumps(right).encode())
        arrays = {} if self.labels is None else {"": self.labels}
        for name, values in sorted((arrays | dict(self.feeds or {})).items()):
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(values.tobytes())
        return digest.hexdigest()

    def units(self) -> Array:
        """The number of what each row belongs to, int64 [rows]: rows to be ranked belong to their query, others to
        themselves."""
        if self.task not in RANKED or self.feeds is not None:
            return np.arange(len(self))
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(row[0], len(numbers)) for row in self.texts], np.int64)

    def probe(self) -> "Dataset":
        """The first row alone, to see what a model answers."""
        return replace(self.take([0]), pool=())

    def take(self, rows: Sequence[int]) -> "Dataset":
        """The rows with these indices, in this order."""
        chosen = np.asarray(rows, np.int64)
        return replace(
            self,
            texts=tuple(self.texts[row] for row in chosen) if self.feeds is None else (),
            labels=None if self.labels is None else self.labels[chosen],
            gold=None if self.gold is None else tuple(self.gold[row] for row in chosen),
            encoded=tuple(self.encoded[row] for row in chosen) if self.encoded else (),
            feeds=None if self.feeds is None else {name: values[chosen] for name, values in self.feeds.items()},
        )

    @property
    def is_pairs(self) -> bool:
        """Whether each row is several texts: two, or the three of a triplet."""
        return self.form == "texts" and self.feeds is None and all(len(row) > 1 for row in self.texts)

    def apart(self) -> "Dataset":
        """The texts of pairs as rows of their own, all first ones before all second ones, without labels.

        With a pool they are the queries, each once, and then the pool.
        """
        sides = tuple((row[side],) for side in range(len(self.texts[0])) for row in self.texts)
        if self.pool:
            sides = (*dict.fromkeys((row[0],) for row in self.texts), *((passage,) for passage in self.pool))
        return replace(self, texts=sides, labels=None, metric=None, pool=(), task="")

    def without(self, other: "Dataset") -> "Dataset":
        """The rows that are not in `other`; texts that differ in spaces or case only count as the same."""
        seen = set(_keys(other))
        return self.take([row for row, key in enumerate(_keys(self)) if key not in seen])


def load_dataset(
    spec: str,
    purpose: Purpose,
    *,
    rows: int | None = None,
    seed: int = 0,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = None,
    task: str = "",
    output: str = "",
) -> Dataset:
    """The data set that `spec` names: a GLUE set, a built-in one, or the path of a file or of a folder like BEIR's.

    A GLUE set calibrates on train and evaluates on validation; a path gives the same rows for both.
    rows: size of a random sample without replacement, in file order; all rows when there are no more.
    text_columns, label_column: instead of those recognised by name; a label column that is named must hold labels.
    task, output: what the model is to be judged as, and by which output (`Dataset`).
    For calibration, which needs no labels, a text file's labels that cannot be read are left out, unless their column
    was named. Raises DataError.
    """
    if rows is not None and rows < 1:
        raise DataError(f"{rows} rows of '{spec}' asked for: needed at least 1")
    name = spec.lower().replace("-", "")
    if name in BUILT_IN:
        dataset = _built_in(name, purpose, text_columns, label_column)
    elif name in GLUE:
        dataset = _glue(name, purpose, text_columns, label_column)
    elif ranked.is_folder(Path(spec)):
        dataset = _folder(Path(spec), purpose)
    elif Path(spec).suffix.lower() == ".npz":
        dataset = _feeds(_existing(spec), label_column)
    else:
        dataset = _dataset(spec, purpose, "all", read_columns(_existing(spec)), None, text_columns, label_column)
    dataset = replace(dataset, task=task or dataset.task, output=output)
    dataset = _with_pool(dataset, purpose)
    if label_column and not dataset.is_labelled:
        raise DataError(f"{spec}: every label in '{label_column}' is -1, which means held back: needed labels")
    return sample(dataset, rows, seed)


def is_named(spec: str | None) -> bool:
    """Whether `spec` is a set with splits of its own: a GLUE set or a built-in one."""
    name = (spec or "").lower().replace("-", "")
    return name in BUILT_IN or name in GLUE


def sample(dataset: Dataset, rows: int | None, seed: int) -> Dataset:
    """`rows` of the set drawn without replacement, in file order; all of them when there are no more.

    Rows to be ranked are drawn query by query, so that the last one may bring more.
    """
    if rows is None or rows >= len(dataset):
        return dataset
    units, drawn = dataset.units(), np.random.default_rng(seed)
    if dataset.task not in RANKED:
        return dataset.take(np.sort(drawn.choice(len(dataset), rows, replace=False)).tolist())
    order = drawn.permutation(int(units.max()) + 1)
    before = np.cumsum([0, *np.bincount(units)[order][:-1]])
    return dataset.take(np.flatnonzero(np.isin(units, order[before < rows])).tolist())


def check_disjoint(calibration: Dataset, evaluation: Dataset) -> None:
    """Raises DataError when a row of `calibration`, spaces and case apart, is also one of `evaluation`."""
    seen = set(_keys(evaluation))
    shared = [row for row, key in enumerate(_keys(calibration)) if key in seen]
    if shared:
        example = repr(" | ".join(calibration.texts[shared[0]])[:80]) if calibration.texts else f"row {shared[0] + 1}"
        raise DataError(
            f"{len(shared)} of {len(calibration)} calibration rows are evaluation rows too, such as {example}: "
            "evaluate on rows that calibration has not seen"
        )


def holdout(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split into (kept, held) in file order, disjoint: `fraction` of the distinct rows, and at least one, is held."""
    keys = _keys(dataset) if dataset.task not in RANKED else dataset.units().tolist()  # a query is held with all it has
    distinct = list(dict.fromkeys(keys))
    if len(distinct) < 2:
        raise DataError(f"'{dataset.name}' has {len(distinct)} distinct row: needed 2 to hold one back")
    count = min(max(round(fraction * len(distinct)), 1), len(distinct) - 1)
    held = {distinct[index] for index in np.random.default_rng(seed).choice(len(distinct), count, replace=False)}
    sides: tuple[list[int], list[int]] = ([], [])
    for row, key in enumerate(keys):
        sides[key in held].append(row)
    return dataset.take(sides[0]), dataset.take(sides[1])


def _built_in(name: str, purpose: Purpose, text_columns: Sequence[str] | None, label_column: str | None) -> Dataset:
    file, labels = BUILT_IN[name]
    with resources.as_file(resources.files("onnxslim_bert.calibration") / file) as path:
        columns = read_columns(path)
    both = _dataset(name, purpose, purpose, columns, labels, text_columns, label_column)
    own = both.take([row for row, split in enumerate(columns["split"]) if split == purpose])
    return replace(own, task=name) if name == "retrieval" else own


def _glue(name: str, purpose: Purpose, text_columns: Sequence[str] | None, label_column: str | None) -> Dataset:
    task = GLUE[name]
    path = find_file(name, task.calibration if purpose == "calibration" else task.evaluation)
    columns = read_columns(path)
    dataset = _dataset(str(path), purpose, path.stem.split("-")[0], columns, task.labels, text_columns, label_column)
    if len(dataset.texts[0]) != task.texts:
        raise DataError(f"{path}: found columns {list(columns)}: '{name}' needs {task.texts} of text")
    if dataset.labels is None and name not in UNLABELLED:
        raise DataError(f"{path}: found no labels in {list(columns)}: '{name}' needs a column 'label'")
    return replace(dataset, name=name, metric=None if dataset.labels is None else task.metric)


def _existing(spec: str) -> Path:
    path = Path(spec)
    if path.is_dir():
        raise DataError(f"{spec} is a folder: needed one file in it, or {ranked.CORPUS}, {ranked.QUERIES} and qrels")
    if not path.exists():
        near = difflib.get_close_matches(spec.lower(), (*GLUE, *BUILT_IN), 1)
        hint = f"did you mean '{near[0]}'?" if near else f"the named sets are {', '.join(GLUE)} and {NAMES}"
        raise DataError(f"no data set and no file is called '{spec}': {hint}")
    return path


def _feeds(path: Path, label_column: str | None) -> Dataset:
    arrays = read_feeds(path)
    named = label_column or next((name for name in LABEL_COLUMNS if name in arrays), None)
    if named and named not in arrays:
        raise DataError(f"{path}: no array '{named}': its arrays are {', '.join(arrays)}")
    feeds = {name: values for name, values in arrays.items() if name != named}
    if not feeds:
        raise DataError(f"{path}: found only labels: needed the model's inputs by name")
    columns = {name: values.tolist() for name, values in arrays.items() if name == named}
    labels = find_labels(columns, named, None, str(path))
    return Dataset(path.name, "all", (), labels, _metric(labels), feeds)


def _dataset(
    source: str,
    purpose: Purpose,
    split: str,
    columns: Columns,
    kind: Classes | Scores | None,
    text_columns: Sequence[str] | None,
    labelled: str | None,
) -> Dataset:
    split_of = Path(source).name, split
    if kind is None and text_columns is None and (found := find_structured(columns, labelled, source)):
        task = {"words": "tags", "passages": "answers"}[found.form]
        form: Form = "words" if found.form == "words" else "passages"
        return Dataset(*split_of, found.texts, None, None, form=form, gold=found.gold, task=task)
    columns = columns if text_columns else ranked.in_pairs(columns, source)
    triplet = None if text_columns else ranked.triplets(columns)
    if triplet:
        return Dataset(*split_of, find_texts(columns, triplet, source, most=3), None, None, task="triplets")
    texts = find_texts(columns, text_columns, source)
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
    rows = Dataset(*split_of, texts, labels, _metric(labels), names=names, worded=worded)
    return replace(rows, task="reranking") if are_queries(columns) and _repeats(rows) else rows


def _folder(path: Path, purpose: Purpose) -> Dataset:
    split, texts, relevance, pool = ranked.read_folder(path, purpose)
    pool = pool if purpose == "evaluation" else ()
    labels = np.array(relevance, np.float32)
    return Dataset(path.resolve().name, split, texts, labels, _metric(labels), task="reranking", pool=pool)


def _with_pool(dataset: Dataset, purpose: Purpose) -> Dataset:
    """`dataset` with the passages that its queries may find: those of all rows, where the task is named retrieval.

    Pairs without labels are then queries with a passage that answers each.
    """
    if dataset.task != "retrieval" or purpose == "calibration" or not dataset.is_pairs:
        return dataset if dataset.task in RANKED and purpose == "evaluation" else replace(dataset, pool=())
    labels = np.ones(len(dataset), np.float32) if dataset.labels is None else dataset.labels
    pool = dataset.pool or tuple(dict.fromkeys(row[1] for row in dataset.texts))
    return replace(dataset, labels=labels, metric=_metric(labels), pool=pool)


def _repeats(dataset: Dataset) -> bool:
    """Whether a first text has several second ones, so that they can be ranked."""
    return dataset.labels is not None and dataset.is_pairs and len({row[0] for row in dataset.texts}) < len(dataset)


def _metric(labels: Array | None) -> Task | None:
    if labels is None:
        return None
    return "accuracy" if labels.dtype.kind == "i" else "pearson-spearman"


def _keys(dataset: Dataset) -> list[Hashable]:
    """A key for each row, the same for equal rows: its texts without regard to spaces and case, or its feeds' bytes."""
    feeds = dataset.feeds
    if feeds is None:
        return [tuple(" ".join(text.split()).casefold() for text in row) for row in dataset.texts]
    return [b"".join(feeds[name][row].tobytes() for name in sorted(feeds)) for row in range(len(dataset))]
