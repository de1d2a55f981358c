"""Tags of words: the entities that they mark, and how many of them a model finds.

An entity is a run of words of one type, as seqeval counts them by default (https://github.com/chakki-works/seqeval,
after the CoNLL-2000 script): it begins at B, S or U, at another type, after E, S, L or O; it is found when type, first
and last word are right.
"""

from collections.abc import Sequence

import numpy as np

from onnxslim_bert.arrays import Array

OUTSIDE = "O"


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """(type, first word, last word) of every entity."""
    found: set[tuple[str, int, int]] = set()
    before, kind, start = OUTSIDE, "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, own = _split(tag)
        if before not in (OUTSIDE, "") and _ends(before, kind, prefix, own):
            found.add((kind, start, place - 1))
        if prefix != OUTSIDE and _begins(before, kind, prefix, own):
            start = place
        before, kind = prefix, own
    return found


def entity_counts(found: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> Array:
    """For each sentence the entities that are right, found and there, float64 [sentences, 3]."""
    pairs = [(entities(ours), entities(gold)) for ours, gold in zip(found, right, strict=True)]
    return np.array([(len(ours & gold), len(ours), len(gold)) for ours, gold in pairs], np.float64).reshape(-1, 3)


def word_counts(found: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> Array:
    """For each sentence the words whose tag is right, and all, float64 [sentences, 2]."""
    pairs = list(zip(found, right, strict=True))
    counts = [(sum(a == b for a, b in zip(ours, gold, strict=True)), len(gold)) for ours, gold in pairs]
    return np.array(counts, np.float64).reshape(-1, 2)


def _split(tag: str) -> tuple[str, str]:
    """The place in an entity and its type: "B-PER" is B and PER, "PER" I and PER."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind) if dash and len(prefix) == 1 else ("I", tag)


def _ends(before: str, kind: str, prefix: str, own: str) -> bool:
    return before in "ESL" or prefix in ("B", "S", "U", OUTSIDE) or kind != own


def _begins(before: str, kind: str, prefix: str, own: str) -> bool:
    return prefix in "BSU" or before in ("E", "S", "L", "U", OUTSIDE) or kind != own
