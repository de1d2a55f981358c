"""In how many bits each int8 matrix lies in the file: what fewer bits do and save, and which to choose from."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from onnxslim_bert.passes.pack_weights import WHOLE


@dataclass(frozen=True)
class MatrixBits:
    """What it does to store one int8 matrix in fewer bits.

    site: the key of the site whose units it reads or writes, "" for none. layers: those that multiply by it; none for
    that of a head. damage: by bits, how far the answers move from those of the int8 model, as `Trials.damage` says.
    nbytes: by bits, how many it saves in the file, the nodes that restore the matrix counted.
    """

    site: str
    layers: tuple[int, ...]
    damage: dict[int, float]
    nbytes: dict[int, float]

    def hull(self) -> list[tuple[int, float, float]]:
        """Bits, squared damage and bytes saved, from WHOLE to the fewest, each worth more than what it costs.

        Those on the lower convex hull: a step to fewer bits saves its bytes at more damage for each than the step
        before it. Example: 4 bits that save 100 bytes at 0.3 are left out where 3 bits save 150 at 0.2.
        """
        found = [(WHOLE, 0.0, 0.0)]
        for bits in sorted(self.damage, reverse=True):
            square, saved = self.damage[bits] ** 2, self.nbytes[bits]
            while len(found) > 1 and _price(found[-2], found[-1]) >= _price(found[-2], (bits, square, saved)):
                found.pop()
            if saved > found[-1][2]:
                found.append((bits, square, saved))
        return found


@dataclass(frozen=True)
class Packing:
    """Bits for the matrices of one site, by the number of each among all int8 matrices; others have WHOLE.

    square: the squared damage that they do together. nbytes: how many they save.
    """

    bits: tuple[tuple[int, int], ...] = ()
    square: float = 0.0
    nbytes: float = 0.0


def packings(matrices: Mapping[int, MatrixBits]) -> list[Packing]:
    """What to choose from for the matrices of one site, by their numbers: from the fewest bits to WHOLE, which is last.

    One matrix after the other goes to fewer bits, the one first that does the least squared damage for a byte: these
    choices are the convex hull of all combinations, as squares and bytes add up.
    """
    steps: list[tuple[float, int, int, float, float]] = []
    for number, one in matrices.items():
        steps += [
            (_price(before, after), number, after[0], after[1] - before[1], after[2] - before[2])
            for before, after in pairwise(one.hull())
        ]
    found, bits, square, saved = [Packing()], dict[int, int](), 0.0, 0.0
    for _, number, width, more, fewer in sorted(steps):
        bits[number] = width
        square, saved = square + more, saved + fewer
        found.append(Packing(tuple(sorted(bits.items())), square, saved))
    return found[::-1]


def _price(before: tuple[int, float, float], after: tuple[int, float, float]) -> float:
    """Squared damage for each byte that the step from one to the other saves."""
    return (after[1] - before[1]) / (after[2] - before[2])
