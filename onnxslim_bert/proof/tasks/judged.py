"""The metrics by which a data set judges a model, and what each of them is computed from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import RANKED, Dataset
from onnxslim_bert.proof.metrics import REPORTED
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.proof.tasks import masked
from onnxslim_bert.proof.tasks.answers import exact_match, said, word_f1
from onnxslim_bert.proof.tasks.no_answer import Threshold, best_threshold
from onnxslim_bert.proof.tasks.ranking import MEASURES, per_query
from onnxslim_bert.proof.tasks.table import TASKS
from onnxslim_bert.proof.tasks.tags import entity_counts, word_counts

_ANSWERS = {"exact-match": exact_match, "answer-f1": word_f1}


@dataclass(frozen=True)
class Judge:
    """One way in which data judge answers.

    fits: whether it does these. metrics: their names, the one that judges first. values: what one of them is computed
    from, with one entry for each row, or for each query: what it adds to the metric, counts for instance.
    """

    fits: Callable[[Outputs, Dataset], bool]
    metrics: Callable[[Outputs, Dataset], tuple[str, ...]]
    values: Callable[[str, Outputs, Dataset], Array]


def metrics_of(outputs: Outputs, dataset: Dataset) -> tuple[str, ...]:
    """The metrics to report, the one that judges first; none where nothing says what is right.

    One score has no argmax, so it is judged by its correlation with the labels whatever they are; an embedding by that
    of the cosines of pairs.
    """
    judge = _judge(outputs, dataset)
    if judge is not None:
        return judge.metrics(outputs, dataset)
    labels, metric = dataset.labels, dataset.metric
    if labels is None or metric is None or outputs.kind not in ("classes", "score", "embedding"):
        return ()
    if outputs.kind == "embedding":
        return TASKS["embedding"].metrics if dataset.is_pairs and labels.dtype.kind == "f" else ()
    return REPORTED["pearson-spearman"] if outputs.kind == "score" else REPORTED[metric]


def judged(metric: str, outputs: Outputs, dataset: Dataset) -> tuple[Array, Array]:
    """The two arrays that `metric` is computed from: predictions and labels, one entry for each row or query.

    Where labels do not say it all, predictions are what each entry adds to the metric (`Judge`), and labels zeros.
    """
    judge = _judge(outputs, dataset)
    if judge is not None:
        values = judge.values(metric, outputs, dataset)
        return values, np.zeros(len(values))
    assert dataset.labels is not None
    return (pair_similarities(outputs) if outputs.kind == "embedding" else outputs.predictions()), dataset.labels


def tags_of(outputs: Outputs, rows: int) -> list[list[str]]:
    """The tag of every word that has one, sentence by sentence; "?" where it is not finite.

    A word has none when it was cut off, or when the tokenizer makes nothing of it.
    """
    assert outputs.owner is not None
    ends = np.searchsorted(outputs.owner, np.arange(rows + 1))
    names = np.array([*(outputs.names or map(str, range(outputs.values.shape[1]))), "?"])
    tags = names[outputs.predictions()]  # -1, of what is not finite, is the last
    return [tags[start:end].tolist() for start, end in pairwise(ends)]


def pair_similarities(outputs: Outputs) -> Array:
    """The similarity of the two embeddings of each pair (`Outputs.vectors`), [pairs]; NaN in them counts as 0."""
    first, second = np.split(np.nan_to_num(outputs.vectors()), 2)
    similarities: Array = (first * second).sum(axis=1)
    return similarities


def label_counts(outputs: Outputs, dataset: Dataset) -> Array:
    """For each row and label three numbers, 0 or 1, [rows, labels, 3]: found and right, found, and right."""
    assert dataset.gold is not None
    names, known = {name: number for number, name in enumerate(outputs.names)}, names_of_numbers(outputs, dataset)
    there = np.zeros(outputs.values.shape, bool)
    for row, labels in enumerate(dataset.gold):
        named = (label if label in names else known.get(label, label) for label in labels)
        there[row, [names.get(label, int(label) if label.isdecimal() else -1) for label in named]] = True
    found = outputs.values > 0
    return np.stack([found & there, found, there], axis=-1).astype(np.float64)


def label_ranking(outputs: Outputs, dataset: Dataset) -> Array:
    """Label ranking average precision of each row, [rows]: for each label that holds, how many of those that score as
    high or higher hold, in the mean; 1 where all labels hold or none, 0 where an answer is not finite.

    Tsoumakas et al. 2010, https://doi.org/10.1007/978-0-387-09823-4_34
    """
    there = label_counts(outputs, dataset)[..., 2] > 0
    before = outputs.values[:, None, :] >= outputs.values[:, :, None]  # [rows, label, others that come no later]
    precision = (before & there[:, None, :]).sum(axis=2) / np.maximum(before.sum(axis=2), 1)
    holds = there.sum(axis=1)
    ranked = (precision * there).sum(axis=1) / np.maximum(holds, 1)
    ranked[holds == 0] = 1
    return np.where(outputs.finite, ranked, 0.0)


def unknown_labels(outputs: Outputs, dataset: Dataset) -> Sequence[str]:
    """Labels of the data that are none of the model's classes."""
    if not any(_has_gold(kind)(outputs, dataset) for kind in ("tokens", "labels")):
        return ()
    known = {*outputs.names, *map(str, range(outputs.values.shape[1]))}
    return sorted({label for row in dataset.gold or () for label in row} - known)


def names_of_numbers(outputs: Outputs, dataset: Dataset) -> dict[str, str]:
    """The name of each class that is written as a number: by the data set's own names where the model has them all,
    else in the model's order.
    """
    names = dataset.names if knows_names(outputs, dataset) else outputs.names
    return {str(number): name for number, name in enumerate(names)}


def knows_names(outputs: Outputs, dataset: Dataset) -> bool:
    """Whether the data set has names for its classes, and the model has all of them."""
    return bool(dataset.names) and {*dataset.names} <= {*outputs.names}


def _judge(outputs: Outputs, dataset: Dataset) -> Judge | None:
    return next((judge for judge in JUDGES if judge.fits(outputs, dataset)), None)


def _right_tags(outputs: Outputs, dataset: Dataset) -> list[list[str]]:
    """The right tag of each word of `tags_of`, by name, where it is written as the number of a class too."""
    assert outputs.owner is not None
    assert outputs.words is not None
    assert dataset.gold is not None
    numbers = names_of_numbers(outputs, dataset)
    right: list[list[str]] = [[] for _ in dataset.gold]
    for row, word in zip(outputs.owner.tolist(), outputs.words.tolist(), strict=True):
        tag = dataset.gold[row][word]
        right[row].append(numbers.get(tag, tag))
    return right


def _tag_metrics(outputs: Outputs, dataset: Dataset) -> tuple[str, ...]:
    """Entities are counted only where the model's tags mark them."""
    names = TASKS["tags"].metrics
    return names if any(tag[1:2] == "-" and tag[:1] in "BISEUL" for tag in outputs.names) else names[1:]


def _tag_counts(metric: str, outputs: Outputs, dataset: Dataset) -> Array:
    found, right = tags_of(outputs, len(dataset)), _right_tags(outputs, dataset)
    return (entity_counts if metric == "entity-f1" else word_counts)(found, right)


def threshold_of(metric: str, outputs: Outputs, dataset: Dataset) -> Threshold:
    """When no answer is best given for `best-exact-match` or `best-answer-f1`, and what each question scores then."""
    measure, right = _ANSWERS[metric.removeprefix("best-")], dataset.gold or ()
    spans = said(outputs.answers, silent=False)
    leads = np.array([answer.lead for answer in outputs.answers])
    return best_threshold(measure(spans, right), measure([""] * len(spans), right), leads)


def _answer_metrics(outputs: Outputs, dataset: Dataset) -> tuple[str, ...]:
    """A threshold is chosen only where some questions have no answer."""
    return TASKS["answers"].metrics[: None if outputs.silent else len(_ANSWERS)]


def _answer_scores(metric: str, outputs: Outputs, dataset: Dataset) -> Array:
    if metric in _ANSWERS:
        return _ANSWERS[metric](outputs.found, dataset.gold or ())
    return threshold_of(metric, outputs, dataset).scores


def _label_values(metric: str, outputs: Outputs, dataset: Dataset) -> Array:
    return (label_ranking if metric == "label-ranking" else label_counts)(outputs, dataset)


def _ranks(outputs: Outputs, dataset: Dataset) -> bool:
    return dataset.task in RANKED and dataset.labels is not None and outputs.kind in ("score", "embedding")


def _rank_metrics(outputs: Outputs, dataset: Dataset) -> tuple[str, ...]:
    """What needs a long list of passages is told only of all that are in a pool."""
    finds = outputs.kind == "embedding" and dataset.pool
    return TASKS["retrieval" if finds else "reranking"].metrics


def _nearer(metric: str, outputs: Outputs, dataset: Dataset) -> Array:
    """Whether the first text of each triplet is nearer to the second than to the third, [triplets]; ties are not."""
    text, like, unlike = np.split(np.nan_to_num(outputs.vectors()), 3)
    nearer: Array = (text * like).sum(axis=1) > (text * unlike).sum(axis=1)
    return nearer.astype(np.float64)


def _has_gold(kind: str) -> Callable[[Outputs, Dataset], bool]:
    forms = {"tokens": "words", "labels": "texts", "spans": "passages"}
    return lambda outputs, dataset: outputs.kind == kind and dataset.gold is not None and dataset.form == forms[kind]


def _of_task(task: str) -> Callable[[Outputs, Dataset], tuple[str, ...]]:
    return lambda outputs, dataset: TASKS[task].metrics


# The first that fits judges.
JUDGES = (
    Judge(_has_gold("tokens"), _tag_metrics, _tag_counts),
    Judge(_has_gold("spans"), _answer_metrics, _answer_scores),
    Judge(_has_gold("labels"), _of_task("multi-label"), _label_values),
    Judge(_ranks, _rank_metrics, lambda metric, outputs, data: per_query(MEASURES[metric], outputs, data)),
    Judge(
        lambda outputs, data: outputs.kind == "embedding" and data.task == "triplets",
        _of_task("triplets"),
        _nearer,
    ),
    Judge(
        lambda outputs, data: outputs.kind == "masked",
        _of_task("fill-mask"),
        lambda metric, outputs, data: masked.counts(metric, outputs, len(data)),
    ),
)
