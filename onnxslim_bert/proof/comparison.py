"""Two models' answers to the same rows, compared: the task's scores with what the rows can carry, and fidelity."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import RANKED, Dataset
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.model.role_names import described
from onnxslim_bert.proof.class_order import check_class_order
from onnxslim_bert.proof.fidelity import Fidelity, fidelity
from onnxslim_bert.proof.intervals import Interval, McNemar, bootstrap, mcnemar, paired_bootstrap, wilson, with_unseen
from onnxslim_bert.proof.metrics import COUNTED, LESS_IS_BETTER, METRICS
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.proof.tasks.answers import plain
from onnxslim_bert.proof.tasks.judged import judged, knows_names, metrics_of, threshold_of, unknown_labels
from onnxslim_bert.proof.tasks.ranking import first_kept, order_kept, queries
from onnxslim_bert.proof.tasks.table import Kind

SHOWN = 4  # classes that are named in a line


@dataclass(frozen=True)
class Score:
    """One task metric of both models, with 95 % intervals, in points but for a perplexity.

    drop: by how much the candidate is worse: less, or more where less is better (`LESS_IS_BETTER`).
    """

    metric: str
    base: Interval
    candidate: Interval
    drop: Interval


@dataclass(frozen=True)
class Comparison:
    """What the rows of one data set say about a candidate.

    scores: the metric that judges the data set first; empty without labels.
    mcnemar: None unless rows have classes.
    broken: how many rows the candidate answers with NaN or infinity; they count as wrong.
    inputs: by role, those that the texts were fed to, and how the mask is written when it is not 1 for tokens.
    taken: what the output was taken for, and by what.
    notes: what the rows lost: texts that were cut, labels that judge nothing.
    """

    data: str
    split: str
    rows: int
    fingerprint: str
    output: str
    kind: Kind
    scores: tuple[Score, ...]
    mcnemar: McNemar | None
    fidelity: Fidelity
    broken: int
    resamples: int
    seed: int
    inputs: dict[str, str] = field(default_factory=dict)
    taken: str = ""
    notes: tuple[str, ...] = ()


def compare(base: Outputs, candidate: Outputs, dataset: Dataset, *, resamples: int = 2000, seed: int = 0) -> Comparison:
    """Score both models' answers and measure how far they are apart.

    Raises ModelError when the two answer different things or the base answers NaN, DataError when the labels do not
    fit the model.
    """
    check_same_answers(base, candidate)
    fingerprint, dataset = dataset.fingerprint(), as_classes(base, dataset)
    metrics = task_metrics(base, dataset)
    if metrics and base.kind == "classes":
        width, ordered = base.values.shape[1], base.order is not None
        check_class_order(base.predictions(), dataset, width, ordered, base.path.name)
    scores = [_score(name, base, candidate, dataset, resamples, seed) for name in metrics]
    split, labels = None, dataset.labels
    if scores and base.kind == "classes" and labels is not None:
        split = mcnemar(base.predictions() == labels, candidate.predictions() == labels)
    return Comparison(
        data=dataset.name,
        split=dataset.split,
        rows=len(dataset),
        fingerprint=fingerprint,
        output=base.output,
        kind=base.kind,
        scores=tuple(scores),
        mcnemar=split,
        fidelity=_fidelity(base, candidate, dataset),
        broken=candidate.broken,
        resamples=resamples,
        seed=seed,
        inputs=described(base.roles),
        taken=_taken(base),
        notes=(
            *dataset.notes,
            *base.notes,
            *_unused(base, dataset, metrics),
            *_numbered(base, dataset),
            *_thresholds(base, candidate, dataset, metrics),
        ),
    )


def _fidelity(base: Outputs, candidate: Outputs, dataset: Dataset) -> Fidelity:
    close = fidelity(base.kind, base.values, candidate.values, owner=base.owner, same=_same(base, candidate))
    if dataset.task not in RANKED or base.kind not in ("score", "embedding"):
        return close
    ours, theirs = queries(base, dataset), queries(candidate, dataset)
    kept, first = order_kept(ours, theirs), first_kept(ours, theirs)
    order = bootstrap(METRICS["mrr@10"], kept, np.zeros(len(kept))) if len(kept) else None
    return replace(close, rank_correlation=order, agreement=wilson(int(first.sum()), len(first)))


def _taken(outputs: Outputs) -> str:
    by = f", by {outputs.reading.by}" if outputs.reading is not None else ""
    width = outputs.values.shape[1]
    chosen = outputs.reading is not None and outputs.reading.kind == "score" and width > 1
    return f"{f'one of {width} endings' if chosen else taken_for(outputs.kind, width)}{by}"


def _unused(outputs: Outputs, dataset: Dataset, metrics: tuple[str, ...]) -> tuple[str, ...]:
    if metrics or not dataset.is_labelled:
        return ()
    what = taken_for(outputs.kind, outputs.values.shape[1])
    return (f"the labels of '{dataset.name}' were not used: they do not judge {what}",)


def _numbered(outputs: Outputs, dataset: Dataset) -> Iterator[str]:
    """A line on tags that are numbers where the model has names for them: their order is not known to be the same."""
    numbers = dataset.gold and all(map(str.isdecimal, chain(*dataset.gold))) and not knows_names(outputs, dataset)
    if outputs.kind == "tokens" and outputs.names and numbers:
        shown = ", ".join(f"{number} is {name}" for number, name in enumerate(outputs.names[:SHOWN]))
        yield f"tags are numbers, taken in the model's order: {shown}{', ...' * (len(outputs.names) > SHOWN)}"


def _thresholds(base: Outputs, candidate: Outputs, dataset: Dataset, metrics: tuple[str, ...]) -> Iterator[str]:
    for name in metrics:
        if name in ("best-exact-match", "best-answer-f1"):
            ours, theirs = (str(threshold_of(name, outputs, dataset)) for outputs in (base, candidate))
            yield f"{name}: no answer where it leads by more than {ours} -> {theirs}, chosen on these rows"


def check_same_answers(base: Outputs, candidate: Outputs) -> None:
    """Raise ModelError unless both answer the same kind of vector, of one width, and the base's are finite."""
    if (base.kind, base.values.shape) != (candidate.kind, candidate.values.shape):
        raise ModelError(f"nothing to compare: {_described(base)}, but {_described(candidate)}")
    if not base.finite.all():
        row = int(np.flatnonzero(~base.finite)[0])
        raise ModelError(f"{base.path}: {base.output} is NaN or infinite on row {row + 1}: needed finite outputs")


def as_classes(outputs: Outputs, dataset: Dataset) -> Dataset:
    """`dataset` with scores that are all whole numbers, like 1.0, made classes, when the model answers classes."""
    labels = dataset.labels
    if labels is None or outputs.kind != "classes" or labels.dtype.kind != "f" or (labels % 1).any():
        return dataset
    return replace(dataset, labels=labels.astype(np.int64), metric="accuracy")


def task_metrics(outputs: Outputs, dataset: Dataset) -> tuple[str, ...]:
    """The metrics to report, the one that judges first; none where the data do not say what is right (`metrics_of`).

    Raises DataError when the labels are not among the model's classes, or are scores where it has classes.
    """
    dataset = as_classes(outputs, dataset)
    unknown = unknown_labels(outputs, dataset)
    if unknown:
        listed = ", ".join(outputs.names) or f"numbers up to {outputs.values.shape[1] - 1}"
        raise DataError(f"'{dataset.name}' has the labels {', '.join(unknown[:5])}: the model's classes are {listed}")
    labels, metric, metrics = dataset.labels, dataset.metric, metrics_of(outputs, dataset)
    if metrics and dataset.worded and outputs.kind in ("score", "embedding"):
        listed = ", ".join(dataset.names[:5])
        raise DataError(f"'{dataset.name}' has the labels {listed}: needed numbers, as {_described(outputs)}")
    if labels is None or outputs.kind != "classes":
        return metrics
    if metric == "pearson-spearman":
        raise DataError(f"'{dataset.name}' holds scores, which need a model with one output, but {_described(outputs)}")
    classes = outputs.values.shape[1]
    known = range(classes) if outputs.order is None else outputs.order
    outside = np.flatnonzero(~np.isin(labels, known))
    if len(outside):
        row = int(outside[0])
        place = f"row {row + 1} of '{dataset.name}'"
        raise DataError(f"label {labels[row]} on {place}: needed one of the model's classes 0 to {classes - 1}")
    return metrics


def _same(base: Outputs, candidate: Outputs) -> Array | None:
    """Questions that get the same answer, bool [rows]; None where answers are no texts."""
    if base.kind != "spans":
        return None
    return np.array([plain(ours) == plain(theirs) for ours, theirs in zip(base.found, candidate.found, strict=True)])


def _score(name: str, base: Outputs, candidate: Outputs, dataset: Dataset, resamples: int, seed: int) -> Score:
    metric = METRICS[name]
    before, labels = judged(name, base, dataset)
    after, _ = judged(name, candidate, dataset)
    if not len(labels):
        raise DataError(f"'{dataset.name}' has no query with a relevant passage: needed one to rank")
    first, second = (after, before) if name in LESS_IS_BETTER else (before, after)
    drop = paired_bootstrap(metric, first, second, labels, resamples, seed)
    if name in COUNTED:
        drop = with_unseen(drop, len(labels))
    if name == "accuracy":
        hits = [int(np.sum(predictions == labels)) for predictions in (before, after)]
        return Score(name, wilson(hits[0], len(labels)), wilson(hits[1], len(labels)), drop)
    ends = [bootstrap(metric, predictions, labels, resamples, seed) for predictions in (before, after)]
    return Score(name, ends[0], ends[1], drop)


def _described(outputs: Outputs) -> str:
    width = outputs.values.shape[1]
    return f"{outputs.path} answers {taken_for(outputs.kind, width)} ({outputs.output})"


def taken_for(kind: Kind, width: int) -> str:
    """What an output of this kind and width is, in words."""
    what: dict[Kind, str] = {
        "classes": f"{width} classes",
        "labels": f"{width} labels that hold or not",
        "score": "one score",
        "embedding": f"an embedding of width {width}",
        "tokens": f"{width} classes a word",
        "spans": "where an answer begins and ends",
        "masked": "the words behind masks",
    }
    return what[kind]
