"""The tasks that a model can be judged as: what each reads, what it needs of the outputs, and what holds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["classes", "labels", "score", "embedding", "tokens", "spans", "masked"]


@dataclass(frozen=True)
class Task:
    """One task.

    kinds: what an output may be taken for, the first that fits. reads: the rows that judge it. metrics: the one that
    judges first; the data set's own where there are none. gate: the budget that needs no labels.
    """

    kinds: tuple[Kind, ...]
    reads: str
    metrics: tuple[str, ...] = ()
    gate: str = "--min-agreement"


# What `--task` may name.
TASKS: Mapping[str, Task] = {
    "classification": Task(("classes",), "texts or pairs with a class each"),
    "multi-label": Task(("labels",), "texts with a list of labels each", ("micro-f1", "macro-f1", "label-ranking")),
    "regression": Task(
        ("score",), "texts or pairs with a number each", ("pearson-spearman", "pearson", "spearman", "mse")
    ),
    "embedding": Task(("embedding",), "pairs with a number each", ("spearman", "pearson"), "--min-cosine"),
    "triplets": Task(
        ("embedding",), "a text, one that is like it and one that is not", ("triplet-accuracy",), "--min-cosine"
    ),
    "retrieval": Task(
        ("embedding",), "queries, passages and relevance", ("ndcg@10", "mrr@10", "recall@10", "recall@100")
    ),
    "reranking": Task(("score", "embedding"), "queries, passages and relevance", ("ndcg@10", "mrr@10", "recall@10")),
    "tags": Task(("tokens",), "words with a tag each", ("entity-f1", "token-accuracy")),
    "answers": Task(
        ("spans",),
        "questions, passages and answers",
        ("exact-match", "answer-f1", "best-exact-match", "best-answer-f1"),
    ),
    "multiple-choice": Task(("score",), "a context with several endings, and which is right", ("accuracy",)),
    "fill-mask": Task(("masked",), "texts", ("top-1", "top-5", "pseudo-perplexity")),
}

NEEDED: Mapping[Kind, str] = {
    "classes": "logits [rows, classes]",
    "labels": "logits [rows, labels]",
    "score": "one number a row",
    "embedding": "vectors [rows, width] or [rows, tokens, width]",
    "tokens": "logits [rows, tokens, classes]",
    "spans": "two outputs [rows, tokens]",
    "masked": "logits [rows, tokens, vocabulary]",
}
# What is counted when two models agree, by what the output is taken for.
AGREES: Mapping[Kind, str] = {"tokens": "words", "labels": "labels", "spans": "answers", "masked": "masked tokens"}


def needs(task: str) -> str:
    """What a task needs of a model's outputs, in words."""
    return " or ".join(NEEDED[kind] for kind in TASKS[task].kinds)
