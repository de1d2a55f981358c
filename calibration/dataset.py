"""Rows to calibrate or evaluate on: texts, or ready model inputs, with what is right where it is known."""

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.glue import Task
from onnxslim_bert.calibration.tokenizer import PlacedRow

Purpose = Literal["calibration", "evaluation"]
Form = Literal["texts", "words", "passages", "windows"]
RANKED = ("reranking", "retrieval")  # tasks whose rows are pairs of a query and a passage
CHOICE = "multiple-choice"  # the task whose rows are a context and its endings
ITSELF = ("fill-mask", "triplets")  # tasks whose texts themselves say what is right


@dataclass(frozen=True)
class Dataset:
    """Rows of text or of ready model inputs, with or without labels.

    texts: strings of each row, what they are says `form`; empty when `feeds` are given.
    form: "texts", one or two a row, three of a triplet, or a context and its endings; "words", those of a sentence;
    "passages", a question and what may answer it; "windows", the same with `encoded`, the tokens of one piece of the
    passage.
    labels: [rows] int64 classes or float32 scores.
    metric: by which the labels judge a model; None without labels.
    feeds: model inputs by name, each [rows, ...].
    names: of the classes, where they are known.
    worded: the file has names for labels; their numbers only follow the alphabet and may not be the model's.
    gold: what is right where it is no number: the tags of words, the answers in a passage, the labels that hold.
    task: what the model is to be judged as, a name in `proof.tasks.table.TASKS`; when empty, told from the model.
    pool: all passages that a query may find, where there are more than those of the rows. own: for queries that are
    passages, the one that is the query itself, which it does not find.
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
    own: Mapping[str, str] = field(default_factory=dict)
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
        """The first row alone, to see what a model answers; of a multiple choice one of the most endings."""
        most = max(map(len, self.texts), default=0) if self.task == CHOICE else 0
        row = next((place for place, texts in enumerate(self.texts) if len(texts) == most), 0)
        return replace(self.take([row]), pool=())

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

    def endings(self) -> "Dataset":
        """Each ending of a multiple choice as a row of its own, a pair with its context, without labels."""
        pairs = tuple((row[0], ending) for row in self.texts for ending in row[1:])
        return replace(self, texts=pairs, labels=None, metric=None, task="")

    def alone(self) -> "Dataset":
        """Rows of no more than two texts, as tokenizers take them: endings with their context, triplets one by one."""
        if self.feeds is not None or self.task not in (CHOICE, "triplets"):
            return self
        return self.endings() if self.task == CHOICE else self.apart()

    def without(self, other: "Dataset") -> "Dataset":
        """The rows that are not in `other`; texts that differ in spaces or case only count as the same."""
        seen = set(row_keys(other))
        return self.take([row for row, key in enumerate(row_keys(self)) if key not in seen])


def metric_of(labels: Array | None) -> Task | None:
    """By what labels judge a model: classes by accuracy, scores by correlation; None without labels."""
    if labels is None:
        return None
    return "accuracy" if labels.dtype.kind == "i" else "pearson-spearman"


def row_keys(dataset: Dataset) -> list[Hashable]:
    """A key for each row, the same for equal rows: its texts without regard to spaces and case, or its feeds' bytes."""
    feeds = dataset.feeds
    if feeds is None:
        return [tuple(" ".join(text.split()).casefold() for text in row) for row in dataset.texts]
    return [b"".join(feeds[name][row].tobytes() for name in sorted(feeds)) for row in range(len(dataset))]
