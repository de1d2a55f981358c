"""The metrics by which a data set judges a model, and what each of them is computed from."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.proof.fidelity import row_cosines
from onnxslim_bert.proof.metrics import REPORTED
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.proof.tasks.answers import exact_match, word_f1
from onnxslim_bert.proof.tasks.tags import entity_counts, word_counts


def metrics_of(outputs: Outputs, dataset: Dataset) -> tuple[str, ...]:
    """The metrics to report, the one that judges first; none where nothing says what is right.

    One score has no argmax, so it is judged by its correlation with the labels whatever they are; an embedding by that
    of the cosines of pairs.
    """
    labels, metric = dataset.labels, dataset.metric
    if dataset.gold is not None:
        marks = any(tag[:2] in ("B-", "I-") for tag in outputs.names)
        by_kind = {
            "tokens": ("entity-f1", "token-accuracy") if marks else ("token-accuracy",),
            "spans": ("exact-match", "answer-f1"),
            "labels": ("micro-f1", "macro-f1"),
        }
        return by_kind.get(outputs.kind, ())
    if labels is None or metric is None or outputs.kind in ("tokens", "spans", "labels"):
        return ()
    if outputs.kind == "embedding":
        return ("spearman", "pearson") if dataset.is_pairs and labels.dtype.kind == "f" else ()
    return REPORTED["pearson-spearman"] if outputs.kind == "score" else REPORTED[metric]


def judged(metric: str, outputs: Outputs, dataset: Dataset) -> tuple[Array, Array]:
    """The two arrays that `metric` is computed from, one entry a row: predictions and labels.

    With gold answers they are what each row adds to the metric, counts for instance, and zeros.
    """
    nothing = np.zeros(len(dataset))
    if dataset.gold is None or outputs.kind not in ("tokens", "spans", "labels"):
        assert dataset.labels is not None
        return (pair_cosines(outputs) if outputs.kind == "embedding" else outputs.predictions()), dataset.labels
    if outputs.kind == "tokens":
        found, right = tags_of(outputs, len(dataset)), _right_tags(outputs, dataset)
        right = [gold[: len(ours)] for ours, gold in zip(found, right, strict=True)]
        return (entity_counts if metric == "entity-f1" else word_counts)(found, right), nothing
    if outputs.kind == "spans":
        return (exact_match if metric == "exact-match" else word_f1)(outputs.found, dataset.gold), nothing
    return label_counts(outputs, dataset), nothing


def tags_of(outputs: Outputs, rows: int) -> list[list[str]]:
    """The tag of every word, sentence by sentence, without words that were cut off; "?" where it is not finite."""
    assert outputs.owner is not None
    ends = np.searchsorted(outputs.owner, np.arange(rows + 1))
    names = np.array([*(outputs.names or map(str, range(outputs.values.shape[1]))), "?"])
    tags = names[outputs.predictions()]  # -1, of what is not finite, is the last
    return [tags[start:end].tolist() for start, end in pairwise(ends)]


def pair_cosines(outputs: Outputs) -> Array:
    """The cosine of the two texts' embeddings of each pair, [pairs]; NaN in them counts as 0."""
    first, second = np.split(outputs.values.astype(np.float64), 2)
    return row_cosines(np.nan_to_num(first), np.nan_to_num(second))


def label_counts(outputs: Outputs, dataset: Dataset) -> Array:
    """For each row and label three numbers, 0 or 1, [rows, labels, 3]: found and right, found, and right."""
    assert dataset.gold is not None
    names = {name: number for number, name in enumerate(outputs.names)}
    there = np.zeros(outputs.values.shape, bool)
    for row, labels in enumerate(dataset.gold):
        there[row, [names.get(label, int(label) if label.isdecimal() else -1) for label in labels]] = True
    found = outputs.values > 0
    return np.stack([found & there, found, there], axis=-1).astype(np.float64)


def unknown_labels(outputs: Outputs, dataset: Dataset) -> Sequence[str]:
    """Labels of the data that are none of the model's classes."""
    if dataset.gold is None or outputs.kind not in ("tokens", "labels"):
        return ()
    known = {*outputs.names, *map(str, range(outputs.values.shape[1]))}
    return sorted({label for row in dataset.gold for label in row} - known)


def _right_tags(outputs: Outputs, dataset: Dataset) -> list[tuple[str, ...]]:
    """The right tags by name, where they are written as numbers of classes too."""
    numbers = {str(number): name for number, name in enumerate(outputs.names)}
    return [tuple(numbers.get(tag, tag) for tag in row) for row in dataset.gold or ()]
