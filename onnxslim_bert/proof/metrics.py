"""The task metrics by which a data set is judged, each over many resamples at once.

A resample is how often each row was drawn, so every metric is a few weighted sums: a metric takes
predictions [rows], labels [rows] and counts [resamples, rows] and gives points [resamples]. Points are
100 times the textbook value, as GLUE's tables print them. What is undefined (no positives, a constant
prediction) is 0.
"""

from collections.abc import Callable

import numpy as np

from onnxslim_bert.arrays import Array

Metric = Callable[[Array, Array, Array], Array]


def score(metric: Metric, predictions: Array, labels: Array) -> float:
    """The metric of the rows as they are, in points; predictions, labels: [rows]."""
    return float(metric(predictions, labels, np.ones((1, len(labels))))[0])


def accuracy(predictions: Array, labels: Array, counts: Array) -> Array:
    """Share of rows whose class is right."""
    return _ratio(counts @ (predictions == labels), counts.sum(axis=1))


def f1(predictions: Array, labels: Array, counts: Array) -> Array:
    """Harmonic mean of precision and recall of class 1, as GLUE scores MRPC and QQP."""
    found, wanted = predictions == 1, labels == 1
    return _ratio(2 * (counts @ (found & wanted)), counts @ found + counts @ wanted)


def matthews(predictions: Array, labels: Array, counts: Array) -> Array:
    """Matthews correlation for two or more classes (Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006)."""
    classes = np.union1d(predictions, labels)
    total = counts.sum(axis=1)
    right = counts @ (predictions == labels)
    found = counts @ (predictions[:, None] == classes)
    wanted = counts @ (labels[:, None] == classes)
    spread = (total**2 - (found**2).sum(axis=1)) * (total**2 - (wanted**2).sum(axis=1))
    return _ratio(right * total - (found * wanted).sum(axis=1), np.sqrt(spread))


def pearson(predictions: Array, labels: Array, counts: Array) -> Array:
    """Linear correlation."""
    return _correlation(predictions, labels, counts)


def spearman(predictions: Array, labels: Array, counts: Array) -> Array:
    """Correlation of the ranks; ties share their average rank."""
    return _correlation(average_ranks(predictions, counts), average_ranks(labels, counts), counts)


def pearson_spearman(predictions: Array, labels: Array, counts: Array) -> Array:
    """Mean of the two correlations, as GLUE scores STS-B."""
    return (pearson(predictions, labels, counts) + spearman(predictions, labels, counts)) / 2


def mean_squared_error(predictions: Array, labels: Array, counts: Array) -> Array:
    """Mean of (prediction - label)^2; no points, and less is better."""
    errors = np.square(predictions.astype(np.float64) - labels)
    scores: Array = (counts @ errors) / counts.sum(axis=1)
    return scores


def share(predictions: Array, labels: Array, counts: Array) -> Array:
    """Share of hits in all tries: predictions [rows, 2] count each row's hits and tries; labels unused."""
    return _ratio(counts @ predictions[:, 0], counts @ predictions[:, 1])


def mean(predictions: Array, labels: Array, counts: Array) -> Array:
    """Mean of what each row scores, from 0 to 1; labels unused."""
    return _ratio(counts @ predictions, counts.sum(axis=1))


def perplexity(predictions: Array, labels: Array, counts: Array) -> Array:
    """exp(-mean log p): predictions [rows, 2] add up each row's log p and count them; no points, and less is better."""
    sums, tries = counts @ predictions[:, 0], counts @ predictions[:, 1]
    scores: Array = np.exp(-np.divide(sums, tries, out=np.zeros(len(sums)), where=tries > 0))
    return scores


def micro_f1(predictions: Array, labels: Array, counts: Array) -> Array:
    """F1 of all that is found: predictions [rows, 3] or [rows, labels, 3] count right, found and there."""
    right, found, there = (counts @ part.reshape(len(part), -1).sum(axis=1) for part in np.moveaxis(predictions, -1, 0))
    return _ratio(2 * right, found + there)


def macro_f1(predictions: Array, labels: Array, counts: Array) -> Array:
    """Mean of the F1 of each label; predictions [rows, labels, 3] as in `micro_f1`."""
    each = [micro_f1(predictions[:, label], labels, counts) for label in range(predictions.shape[1])]
    scores: Array = np.mean(each, axis=0)
    return scores


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson-spearman": pearson_spearman,
    "pearson": pearson,
    "spearman": spearman,
    "mse": mean_squared_error,
    "entity-f1": micro_f1,
    "token-accuracy": share,
    "exact-match": mean,
    "answer-f1": mean,
    "best-exact-match": mean,
    "best-answer-f1": mean,
    "micro-f1": micro_f1,
    "macro-f1": macro_f1,
    "label-ranking": mean,
    "triplet-accuracy": mean,
    "ndcg@10": mean,
    "mrr@10": mean,
    "recall@10": mean,
    "recall@100": mean,
    "top-1": share,
    "top-5": share,
    "pseudo-perplexity": perplexity,
}
LESS_IS_BETTER = frozenset({"pseudo-perplexity", "mse"})
# Metrics that add up what each row, query or text gets, from 0 to 1: where all rows agree, unseen ones may not.
COUNTED = frozenset(METRICS) - {"pearson-spearman", "pearson", "spearman", "mse", "pseudo-perplexity"}

# What is reported for a data set: the metric that judges it first.
REPORTED: dict[str, tuple[str, ...]] = {
    "accuracy": ("accuracy",),
    "f1": ("f1", "accuracy"),
    "matthews": ("matthews", "accuracy"),
    "pearson-spearman": ("pearson-spearman", "pearson", "spearman", "mse"),
}


def average_ranks(values: Array, counts: Array) -> Array:
    """Rank, from 1, of every row's value within every resample; equal values share their average rank.

    values [rows], counts [resamples, rows] -> [resamples, rows]
    """
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    held = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks: Array = np.cumsum(held, axis=1) - held / 2 + 0.5
    return ranks[:, group]


def _correlation(x: Array, y: Array, counts: Array) -> Array:
    """Weighted Pearson correlation in points; x and y [rows] or [resamples, rows]."""
    x, y = _centred(x, counts), _centred(y, counts)
    spread = (counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1)
    return _ratio((counts * x * y).sum(axis=1), np.sqrt(spread))


def _centred(values: Array, counts: Array) -> Array:
    """values less their weighted mean [resamples, rows]; exactly 0 where only rounding is left."""
    values = np.broadcast_to(values.astype(np.float64), counts.shape)
    centred = values - (counts * values).sum(axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)
    largest = np.abs(values).max(axis=1, keepdims=True)
    rounding = np.abs(centred).max(axis=1, keepdims=True, where=counts > 0, initial=0) <= 1e-12 * largest
    return np.where(rounding, 0.0, centred)


def _ratio(part: Array, whole: Array) -> Array:
    """100 part / whole; 0 where whole is 0."""
    return 100 * np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
