"""How sure a row must be to leave, and behind which layers it may."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from onnxslim_bert.arrays import Array

MOST = 3  # exits that are chosen


@dataclass(frozen=True)
class Exits:
    """What rows do at exits, by the layer behind which these lie.

    certainties: how sure a row must be to leave. left: share of the rows that leave there. depth: layers that a row
    passes on average. changed: share of the rows that leave with another answer.
    """

    certainties: dict[int, float]
    left: dict[int, float]
    depth: float
    changed: float


def certainty_of(answers: Array) -> Array:
    """The probability of the likeliest class, [rows], of logits [rows, classes]."""
    powers = np.exp(answers - answers.max(1, keepdims=True))
    largest: Array = 1 / powers.sum(1)
    return largest


def fewest_rows(share: float) -> int:
    """Rows that are needed to bound wrong answers by `share`. Example: 99 for 0.01."""
    return int(np.ceil(1 / share - 1e-9)) - 1


def lowest_certainty(certainty: Array, wrong: Array, share: float) -> float:
    """The lowest certainty at which, of new rows, at most `share` is expected to be so sure and wrong.

    certainty: [rows]. wrong: bool [rows]. With n rows of the same kind as the new ones, share * (n + 1) - 1 of them may
    be sure and wrong, rounded down (conformal risk control, Angelopoulos et al. 2022,
    https://arxiv.org/abs/2208.02814). Above 1, so that no row is sure, where n is less than `fewest_rows`.
    """
    allowed = int(np.floor(share * (len(certainty) + 1) + 1e-9)) - 1
    surest = np.sort(certainty[wrong])[::-1]
    if allowed < 0:
        return 2.0
    return float(np.nextafter(np.float32(surest[allowed]), np.float32(2))) if allowed < len(surest) else 0.0


def exits_at(
    certainties: Mapping[int, float], sure: Mapping[int, Array], wrong: Mapping[int, Array], layers: int
) -> Exits:
    """What rows do at exits of these certainties. sure, wrong: [rows] by layer; layers: of the whole encoder."""
    rows = len(next(iter(sure.values())))
    here, depth, changed, left = np.ones(rows, bool), 0.0, 0.0, dict[int, float]()
    for layer in sorted(certainties):
        leaves = here & (sure[layer] >= certainties[layer])
        left[layer] = float(leaves.mean())
        depth += (layer + 1) * left[layer]
        changed += float((leaves & wrong[layer]).mean())
        here &= ~leaves
    used = {layer: certainty for layer, certainty in sorted(certainties.items()) if left[layer]}
    return Exits(used, {layer: left[layer] for layer in used}, depth + layers * float(here.mean()), changed)


def choose_exits(
    sure: Mapping[int, Array], wrong: Mapping[int, Array], layers: int, drop: float, after: Sequence[int] = ()
) -> Exits:
    """Exits with which at most the share `drop` of new rows is expected to get another answer.

    They share it evenly. sure, wrong, layers: as for `exits_at`. after: the layers that have exits; where none are
    given, up to MOST with which rows pass the fewest layers.
    """
    sets = [tuple(after)] if after else [s for n in range(1, MOST + 1) for s in combinations(sorted(sure), n)]
    found = [
        exits_at({i: lowest_certainty(sure[i], wrong[i], drop / len(some)) for i in some}, sure, wrong, layers)
        for some in sets
    ]
    return min(found, key=lambda exits: exits.depth)
