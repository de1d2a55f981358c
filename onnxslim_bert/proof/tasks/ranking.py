"""Passages in the order in which a model ranks them for each query, and how good that order is.

Every measure is one number a query from 0 to 1, so that intervals resample whole queries. A passage whose score ties
with another's is ranked as badly as the tie allows: a model that answers one number for all is not saved by the order
of the file. Queries to which no passage is relevant judge nothing and are left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.proof.metrics import average_ranks, spearman
from onnxslim_bert.proof.outputs import Outputs

IRRELEVANT = ("not", "no", "irrelevant", "non", "negative", "false", "un", "0", "label_0")  # how such a class is called
TOP = 10
FAR = 100


@dataclass(frozen=True)
class Query:
    """The passages of one query: the model's scores [passages], and how relevant they are [passages], 0 for not."""

    scores: Array
    relevance: Array


def queries(outputs: Outputs, dataset: Dataset) -> list[Query]:
    """The passages of every query in the data set's order, also of those to which nothing is relevant.

    An embedding ranks by its similarities (`Outputs.vectors`): all passages of the pool, or those of the query's own
    rows without a pool.
    """
    relevance = np.maximum(np.zeros(len(dataset)) if dataset.labels is None else dataset.labels.astype(np.float64), 0)
    of_query = dataset.units()
    rows = [np.flatnonzero(of_query == number) for number in range(int(of_query.max()) + 1)]
    if outputs.kind == "embedding" and dataset.pool:
        return _from_pool(outputs, dataset, relevance, rows)
    scores = pair_scores(outputs)
    return [Query(scores[own], relevance[own]) for own in rows]


def pair_scores(outputs: Outputs) -> Array:
    """How well passage and query of each pair fit, float64 [rows]; the least of all where it is not finite."""
    if outputs.kind == "embedding":
        first, second = np.split(outputs.vectors(), 2)
        scores: Array = (first * second).sum(axis=1)
    else:
        scores = outputs.values[:, 0].astype(np.float64)
    return np.where(np.isfinite(scores), scores, -np.inf)


def per_query(measure: Callable[[Query], float], outputs: Outputs, dataset: Dataset) -> Array:
    """`measure` of each query that has a relevant passage, float64 [queries]."""
    found = [measure(query) for query in queries(outputs, dataset) if query.relevance.any()]
    return np.array(found, np.float64)


def ndcg(query: Query) -> float:
    """nDCG@10: the relevance of the first 10, each over log2(1 + its place), over that of the best order.

    Järvelin and Kekäläinen 2002, https://doi.org/10.1145/582415.582418; linear gains, as in trec_eval and BEIR.
    """
    return _gained(_ranked(query)) / _gained(np.sort(query.relevance)[::-1])


def reciprocal_rank(query: Query) -> float:
    """MRR@10: 1 over the place of the first relevant passage; 0 when it is not among the first 10."""
    places = np.flatnonzero(_ranked(query)[:TOP] > 0)
    return 1 / (1 + int(places[0])) if len(places) else 0.0


def recall(query: Query, count: int = TOP) -> float:
    """The share of the relevant passages that are among the first `count`."""
    return float((_ranked(query)[:count] > 0).sum() / (query.relevance > 0).sum())


def far_recall(query: Query) -> float:
    """Recall among the first 100."""
    return recall(query, FAR)


def order_kept(base: Sequence[Query], candidate: Sequence[Query]) -> Array:
    """Rank correlation (Spearman) of two models' scores of each query, from -1 to 1; [queries of two passages up]."""
    pairs = [(ours.scores, theirs.scores) for ours, theirs in zip(base, candidate, strict=True) if len(ours.scores) > 1]
    return np.array([_correlation(ours, theirs) for ours, theirs in pairs], np.float64)


def first_kept(base: Sequence[Query], candidate: Sequence[Query]) -> Array:
    """Whether both models put the same passage first, bool [queries]; a score that is not finite puts none there."""
    pairs = [(ours.scores, theirs.scores) for ours, theirs in zip(base, candidate, strict=True)]
    return np.array(
        [bool(np.isfinite(theirs).all()) and ours.argmax() == theirs.argmax() for ours, theirs in pairs], bool
    )


def relevance(logits: Array, names: Sequence[str]) -> Array:
    """The score of two logits [rows, 2], of passages that are relevant or not: their difference, [rows, 1].

    The relevant one is the second, unless the classes' `names` say that it is the first.
    """
    second = [name.lower().replace("-", "_") for name in names[1:2]]
    is_first = any(name.startswith(IRRELEVANT) for name in second)
    first, last = logits[:, :1], logits[:, 1:]
    return first - last if is_first else last - first


MEASURES: dict[str, Callable[[Query], float]] = {
    "ndcg@10": ndcg,
    "mrr@10": reciprocal_rank,
    "recall@10": recall,
    "recall@100": far_recall,
}


def _from_pool(outputs: Outputs, dataset: Dataset, relevance: Array, rows: Sequence[Array]) -> list[Query]:
    asked, passages = np.split(outputs.vectors(), [len(rows)])
    places = {text: place for place, text in enumerate(dataset.pool)}
    found: list[Query] = []
    for vector, own in zip(asked, rows, strict=True):
        scores, right = passages @ vector, np.zeros(len(dataset.pool))
        right[[places[dataset.texts[row][1]] for row in own]] = relevance[own]
        itself = places.get(dataset.own.get(dataset.texts[own[0]][0], ""))
        others = np.arange(len(scores)) != (-1 if itself is None else itself)
        found.append(Query(np.where(np.isfinite(scores), scores, -np.inf)[others], right[others]))
    return found


def _ranked(query: Query) -> Array:
    """Relevance in the order of the scores, the least relevant of those that tie first."""
    ordered: Array = query.relevance[np.lexsort([query.relevance, -query.scores])]
    return ordered


def _gained(relevance: Array) -> float:
    first = relevance[:TOP]
    return float((first / np.log2(np.arange(2, len(first) + 2))).sum())


def _correlation(ours: Array, theirs: Array) -> float:
    """Spearman's; 1 for two orders that are the same, constant ones included."""
    once = np.ones((1, len(ours)))
    ranks = [average_ranks(side, once) for side in (ours, theirs)]
    if np.array_equal(ranks[0], ranks[1]):
        return 1.0
    return float(spearman(ranks[0][0], ranks[1][0], once)[0]) / 100
