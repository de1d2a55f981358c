"""Store a table as codes of a few bytes a row and the centroids that they stand for: products and sums of codebooks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array

ENTRIES = 256  # centroids of a codebook: a code is a byte
ROUNDS = 8  # of Lloyd's algorithm
REFITS = 4  # times all codebooks of a sum are fitted together again
BEAM = 4  # partial sums of centroids that are followed for each row
SAMPLE = 8192  # rows that centroids are fitted on, drawn by weight; codes are chosen for all rows
AT_ONCE = 512  # rows whose distances to all centroids are held at once: they fit into a cache


@dataclass(frozen=True)
class CodedRows:
    """A table [rows, width] whose entries are sums of centroids; the last group is cut where the width ends in it.

    codes: uint8 [rows, groups, stages]. centroids: float32 [groups, stages, entries, group]. Columns g * group and
    following of row r are the sum over s of centroids[g, s, codes[r, g, s]]. Example: a row of 384 columns with
    group=8 and two stages takes 96 bytes.
    """

    width: int
    codes: Array
    centroids: Array

    @property
    def nbytes(self) -> int:
        """Bytes of codes and centroids together."""
        return self.codes.nbytes + self.centroids.nbytes

    def restored(self) -> Array:
        """The table that the codes stand for, float32 [rows, width]."""
        parts = [_total(codebooks, self.codes[:, group]) for group, codebooks in enumerate(self.centroids)]
        return np.concatenate(parts, axis=1)[:, : self.width]

    def times(self, columns: Array) -> "CodedRows":
        """The table with its columns multiplied by columns [width]."""
        groups, _, _, group = self.centroids.shape
        factors = np.pad(columns, (0, groups * group - self.width)).reshape(groups, 1, 1, group)
        return CodedRows(self.width, self.codes, (self.centroids * factors).astype(np.float32))


@dataclass(frozen=True)
class Fit:
    """How codebooks are fitted.

    group: columns that share codes. stages: codes whose centroids are added up. together: after one stage is fitted to
    what the ones before it leave, choose all codes of a row together and fit all centroids by least squares.
    """

    group: int
    stages: int = 1
    together: bool = False


def code_rows(table: Array, weights: Array, fit: Fit) -> CodedRows:
    """Codes and centroids for `table` [rows, width] with a small squared error, where row r counts weights[r].

    Lloyd's k-means for each group of columns and each stage. A group that has no more distinct parts than a codebook
    has entries is stored as it is. The same table and weights give the same codes. Where fit.group does not divide the
    width, zeros fill it up.
    """
    rows, width = table.shape
    table = np.pad(table, ((0, 0), (0, -width % fit.group)))
    groups = table.shape[1] // fit.group
    codes = np.zeros((rows, groups, fit.stages), np.uint8)
    centroids = np.zeros((groups, fit.stages, min(ENTRIES, rows), fit.group), np.float32)
    rng = np.random.default_rng(0)
    drawn = np.sort(_drawn(weights, rng))
    for g in range(groups):
        part = np.ascontiguousarray(table[:, g * fit.group : (g + 1) * fit.group], np.float32)
        distinct, number = np.unique(part, axis=0, return_inverse=True)
        if len(distinct) <= ENTRIES:
            centroids[g, 0, : len(distinct)] = distinct
            codes[:, g, 0] = number.reshape(-1)
            continue
        sample, counted = part[drawn], weights[drawn].astype(np.float32)
        centroids[g] = _fitted(sample, counted, fit, rng)
        codes[:, g] = _chosen(part, centroids[g], BEAM if fit.together else 1)
    return CodedRows(width, codes, centroids)


def _drawn(weights: Array, rng: np.random.Generator) -> Array:
    """Different rows, at most SAMPLE, each with a chance that grows with its weight (Efraimidis and Spirakis 2006)."""
    if len(weights) <= SAMPLE:
        return np.arange(len(weights))
    keys = np.log(rng.random(len(weights))) / np.maximum(weights, 1e-30)
    return np.argpartition(-keys, SAMPLE)[:SAMPLE]


def _fitted(rows: Array, weights: Array, fit: Fit, rng: np.random.Generator) -> Array:
    """Centroids [stages, entries, group] for `rows` [n, group]."""
    left, codebooks = rows, []
    for _ in range(fit.stages):
        codebook = _lloyd(left, weights, rng)
        codebooks.append(codebook)
        left = left - codebook[_nearest(left, codebook)]
    fitted = np.stack(codebooks)
    for _ in range(REFITS if fit.together else 0):
        fitted = _least_squares(rows, weights, _chosen(rows, fitted, BEAM), fitted)
    return fitted


def _lloyd(rows: Array, weights: Array, rng: np.random.Generator) -> Array:
    """Centroids [entries, group] of weighted k-means; an empty cell takes the row that costs most."""
    start = rng.choice(len(rows), ENTRIES, replace=False, p=weights / weights.sum(dtype=np.float64))
    centroids = rows[start]
    for _ in range(ROUNDS):
        codes = _nearest(rows, centroids)
        mass = np.bincount(codes, weights, ENTRIES)
        sums = np.stack([np.bincount(codes, weights * column, ENTRIES) for column in rows.T], axis=1)
        means = (sums / np.maximum(mass, 1e-30)[:, None]).astype(np.float32)
        empty = np.flatnonzero(mass == 0)
        if len(empty):
            costs = weights * np.square(rows - centroids[codes]).sum(1)
            means[empty] = rows[np.argsort(-costs, kind="stable")[: len(empty)]]
        centroids = means
    return centroids


def _nearest(rows: Array, centroids: Array) -> Array:
    """The nearest of centroids [entries, group] to each of rows [n, group], [n]."""
    half = np.square(centroids).sum(1) / 2
    return np.concatenate([(part @ centroids.T - half).argmax(1) for part in _parts(rows)])


def _chosen(rows: Array, codebooks: Array, beam: int) -> Array:
    """A code from each of codebooks [stages, entries, group] for each of rows [n, group], uint8 [n, stages].

    Beam search: the `beam` best sums of one code a stage go on to the next one.
    """
    return np.concatenate([_chosen_part(part, codebooks, beam) for part in _parts(rows)])


def _chosen_part(rows: Array, codebooks: Array, beam: int) -> Array:
    count, entries = len(rows), codebooks.shape[1]
    left, codes = rows[:, None], np.zeros((count, 1, 0), np.uint8)
    for stage, codebook in enumerate(codebooks):
        width = 1 if stage == len(codebooks) - 1 else min(beam, entries)
        nearness = left @ codebook.T
        nearness -= np.square(codebook).sum(1) / 2
        if left.shape[1] > 1:
            nearness -= np.square(left).sum(-1)[:, :, None] / 2
        flat = nearness.reshape(count, -1)
        best = flat.argmax(1)[:, None] if width == 1 else np.argpartition(-flat, width - 1, axis=1)[:, :width]
        before, chosen = best // entries, best % entries
        codes = np.concatenate([np.take_along_axis(codes, before[..., None], 1), chosen[..., None].astype(np.uint8)], 2)
        left = np.take_along_axis(left, before[..., None], 1) - codebook[chosen]
    return codes[:, 0]


def _least_squares(rows: Array, weights: Array, codes: Array, codebooks: Array) -> Array:
    """The codebooks [stages, entries, group] of least squared error with these codes [n, stages]."""
    stages, entries, group = codebooks.shape
    places = codes.astype(np.int64)
    pairs = np.zeros((stages, entries, stages, entries))
    for i in range(stages):
        for j in range(stages):
            together = np.bincount(places[:, i] * entries + places[:, j], weights, entries * entries)
            pairs[i, :, j] = together.reshape(entries, entries)
    normal: Array = pairs.reshape(stages * entries, stages * entries)
    aimed = [[np.bincount(places[:, i], weights * column, entries) for column in rows.T] for i in range(stages)]
    right = np.transpose(aimed, (0, 2, 1)).reshape(stages * entries, group)
    ridge = 1e-3 * float(np.trace(normal)) / len(normal)  # towards what they were: codes nobody has, and shifts
    normal[np.diag_indices(len(normal))] += ridge
    fitted = np.linalg.solve(normal, right + ridge * codebooks.reshape(-1, group))
    return fitted.reshape(codebooks.shape).astype(np.float32)


def _total(codebooks: Array, codes: Array) -> Array:
    """The sums of centroids for codes [rows, stages], [rows, group]."""
    total: Array = np.zeros((len(codes), codebooks.shape[-1]), codebooks.dtype)
    for codebook, chosen in zip(codebooks, codes.T, strict=True):
        total += codebook[chosen]
    return total


def _parts(rows: Array) -> Iterator[Array]:
    return (rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE))
