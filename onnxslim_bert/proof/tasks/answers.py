"""Answers in passages: the best span of start and end logits, and SQuAD's exact match and F1.

Rajpurkar et al. 2016 and 2018, https://arxiv.org/abs/1606.05250, https://arxiv.org/abs/1806.03822; texts are compared
as their official script does: lower case, without punctuation and articles.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array

LONGEST = 30  # tokens of an answer, as in the script of Devlin et al. 2019
BEST = 20  # starts and ends that are tried
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Answer:
    """The likeliest span of a question. lead: its score over that of no answer; -inf where there is no span."""

    text: str
    lead: float


NO_ANSWER = Answer("", -math.inf)


def said(answers: Sequence[Answer], *, silent: bool) -> tuple[str, ...]:
    """The text of each answer; where the model may be `silent`, "" if no answer is likelier than the span."""
    return tuple("" if silent and answer.lead < 0 else answer.text for answer in answers)


def best_span(starts: Array, ends: Array, context: Array) -> tuple[float, int, int]:
    """(score, first token, last token) of the likeliest span within `context`, bool [tokens]; -inf without any."""
    first, last = (np.where(context, logits.astype(np.float64), -np.inf) for logits in (starts, ends))
    best = (-np.inf, 0, 0)
    for begin in np.argsort(-first, kind="stable")[:BEST]:
        for end in np.argsort(-last, kind="stable")[:BEST]:
            value = first[begin] + last[end]
            if begin <= end < begin + LONGEST and value > best[0]:
                best = float(value), int(begin), int(end)
    return best


def exact_match(found: Sequence[str], right: Sequence[Sequence[str]]) -> Array:
    """1 for each answer that is one of the right ones, float64 [questions]; no answer is the empty one."""
    return _best(found, right, lambda ours, gold: float(plain(ours) == plain(gold)))


def word_f1(found: Sequence[str], right: Sequence[Sequence[str]]) -> Array:
    """F1 of the words of each answer and of the right one that is nearest, float64 [questions]."""
    return _best(found, right, _overlap)


def plain(answer: str) -> str:
    """The answer as it is compared."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def _overlap(found: str, right: str) -> float:
    ours, gold = plain(found).split(), plain(right).split()
    if not ours or not gold:
        return float(ours == gold)
    both = sum((Counter(ours) & Counter(gold)).values())
    return 2 * both / (len(ours) + len(gold))


def _best(found: Sequence[str], right: Sequence[Sequence[str]], measure: Callable[[str, str], float]) -> Array:
    # as the script for 2.0: an answer of which nothing is left is none, unless there is no other
    left = [[gold for gold in golds if plain(gold)] or [""] for golds in right]
    pairs = zip(found, left, strict=True)
    return np.array([max(measure(ours, gold) for gold in golds) for ours, golds in pairs], np.float64)
