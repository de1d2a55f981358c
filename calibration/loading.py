"""Data sets to calibrate and evaluate on: GLUE's by name, a file by path, or one that is built in.

What is built in was written for this project and has the project's licence, Apache-2.0.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np

from onnxslim_bert.calibration import ranked
from onnxslim_bert.calibration.columns import LABEL_COLUMNS, Classes, Scores, find_labels
from onnxslim_bert.calibration.dataset import RANKED, Dataset, Purpose, metric_of
from onnxslim_bert.calibration.files import read_columns, read_feeds
from onnxslim_bert.calibration.glue import GLUE, UNLABELLED
from onnxslim_bert.calibration.hub import find_file
from onnxslim_bert.calibration.splitting import sample
from onnxslim_bert.calibration.tables import from_columns
from onnxslim_bert.errors import DataError

# The built-in sets: their files, and what their labels are where the values do not say.
BUILT_IN: Mapping[str, tuple[str, Classes | Scores | None]] = {
    "tags": ("tags.jsonl", None),
    "answers": ("answers.jsonl", None),
    "similarity": ("similarity.jsonl", GLUE["stsb"].labels),
    "retrieval": ("retrieval.jsonl", None),
    "reviews": ("reviews.tsv", GLUE["sst2"].labels),
}
NAMES = ", ".join(BUILT_IN)


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
        dataset = from_columns(spec, purpose, "all", read_columns(_existing(spec)), None, text_columns, label_column)
    dataset = replace(dataset, task=task or dataset.task, output=output)
    dataset = _with_pool(dataset, purpose)
    if label_column and not dataset.is_labelled:
        raise DataError(f"{spec}: every label in '{label_column}' is -1, which means held back: needed labels")
    return sample(dataset, rows, seed)


def is_named(spec: str | None) -> bool:
    """Whether `spec` is a set with splits of its own: a GLUE set or a built-in one."""
    name = (spec or "").lower().replace("-", "")
    return name in BUILT_IN or name in GLUE


def _built_in(name: str, purpose: Purpose, text_columns: Sequence[str] | None, label_column: str | None) -> Dataset:
    file, labels = BUILT_IN[name]
    with resources.as_file(resources.files("onnxslim_bert.calibration") / file) as path:
        columns = read_columns(path)
    both = from_columns(name, purpose, purpose, columns, labels, text_columns, label_column)
    own = both.take([row for row, split in enumerate(columns["split"]) if split == purpose])
    return replace(own, task=name) if name == "retrieval" else own


def _glue(name: str, purpose: Purpose, text_columns: Sequence[str] | None, label_column: str | None) -> Dataset:
    task = GLUE[name]
    path = find_file(name, task.calibration if purpose == "calibration" else task.evaluation)
    columns = read_columns(path)
    dataset = from_columns(
        str(path), purpose, path.stem.split("-")[0], columns, task.labels, text_columns, label_column
    )
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
    return Dataset(path.name, "all", (), labels, metric_of(labels), feeds)


def _folder(path: Path, purpose: Purpose) -> Dataset:
    split, texts, relevance, pool, own = ranked.read_folder(path, purpose)
    pool = pool if purpose == "evaluation" else ()
    labels = np.array(relevance, np.float32)
    return Dataset(path.resolve().name, split, texts, labels, metric_of(labels), task="reranking", pool=pool, own=own)


def _with_pool(dataset: Dataset, purpose: Purpose) -> Dataset:
    """`dataset` with the passages that its queries may find: those of all rows, where the task is named retrieval.

    Pairs without labels are then queries with a passage that answers each.
    """
    if dataset.task != "retrieval" or purpose == "calibration" or not dataset.is_pairs:
        return dataset if dataset.task in RANKED and purpose == "evaluation" else replace(dataset, pool=())
    labels = np.ones(len(dataset), np.float32) if dataset.labels is None else dataset.labels
    pool = dataset.pool or tuple(dict.fromkeys(row[1] for row in dataset.texts))
    return replace(dataset, labels=labels, metric=metric_of(labels), pool=pool)
