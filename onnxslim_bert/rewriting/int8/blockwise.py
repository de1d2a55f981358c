"""Matrices in four or eight bits an entry, with a scale and a zero for each block of inputs: rounding and GPTQ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import PassError

Rounding = Literal["gptq", "nearest"]

SHRINK = np.linspace(0.6, 1.0, 17)  # scales tried for a block: these times the one that reaches both its ends
DAMPING = 0.01  # times the mean variance is added to each variance, so that the inverse exists
AT_ONCE = 128  # inputs that are rounded before their errors are passed on to all later inputs, in one product
SWEEPS = 4  # times that `refined` goes through all inputs; on a classifier of 6 layers the 5th takes 1 % off the error


@dataclass(frozen=True)
class Blocks:
    """A matrix [d_in, d_out] as levels: an entry is (level - zero) * scale, with those of its block of inputs.

    levels: uint8 [d_in, d_out]; scales: float32 [blocks, d_out]; zeros: uint8 [blocks, d_out]. bits: of a level and of
    a zero. size: inputs in a block; the last one may have fewer.
    """

    levels: Array
    scales: Array
    zeros: Array
    bits: int
    size: int

    @property
    def matrix(self) -> Array:
        """The matrix float32 [d_in, d_out] that they stand for."""
        return (self.levels.astype(np.float32) - self.of_rows(self.zeros)) * self.of_rows(self.scales)

    def of_rows(self, values: Array) -> Array:
        """Values of blocks [blocks, d_out], for each input: float32 [d_in, d_out]."""
        return np.repeat(values, self.size, axis=0)[: len(self.levels)].astype(np.float32)


def check_blocks(name: str, bits: int, known: Sequence[int], block: int, rounding: str) -> None:
    """Raise PassError for options of the pass `name` that make no blocks. known: the bits that it takes."""
    if bits not in known:
        raise PassError(f"{name}: bits={bits} is not one of {', '.join(map(str, known))}")
    if block < 16 or block & (block - 1):
        raise PassError(f"{name}: block={block} is not a power of two from 16 up")
    if rounding not in get_args(Rounding):
        raise PassError(f"{name}: rounding={rounding!r} is not one of {', '.join(get_args(Rounding))}")


def round_blocks(weight: Array, bits: int, size: int) -> Blocks:
    """The levels nearest to `weight` [d_in, d_out]; the scale and the zero of a block have the least squared error."""
    return _blocks(weight, np.ones(len(weight), np.float32), bits, size)


def gptq(weight: Array, covariance: Array, bits: int, size: int) -> Blocks:
    """Levels as `round_blocks` gives them, but chosen for the product x @ weight, not for the weight.

    covariance [d_in, d_in]: of the inputs x. Rows of the weight are rounded one after the other, and the error of each
    is made up for by the rows still to come. So the variance of the product's error becomes small; its mean is left to
    a bias. Rows of inputs with large variance go first, while most others are still there to make up for them.
    Frantar et al. 2022, https://arxiv.org/abs/2210.17323
    """
    damped = covariance.astype(np.float64)
    damped[np.diag_indices(len(damped))] += DAMPING * float(np.trace(damped)) / len(damped) or 1.0
    blocks = _blocks(weight, np.diag(damped).astype(np.float32), bits, size)
    order = np.argsort(-np.diag(damped), kind="stable")
    steps, zeros = blocks.of_rows(blocks.scales)[order], blocks.of_rows(blocks.zeros)[order]
    # upper triangular with inverse(damped) = chain.T @ chain: row i tells what input i's error asks of later inputs
    chain = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T.astype(np.float32)
    left = weight[order].astype(np.float32)
    levels = np.empty(weight.shape, np.uint8)
    for start in range(0, len(left), AT_ONCE):
        stop = min(start + AT_ONCE, len(left))
        errors = np.empty((stop - start, left.shape[1]), np.float32)
        for i in range(start, stop):
            found = _levels(left[i], steps[i], zeros[i], bits)
            levels[order[i]] = found
            errors[i - start] = (left[i] - (found - zeros[i]) * steps[i]) / chain[i, i]
            left[i + 1 : stop] -= np.outer(chain[i, i + 1 : stop], errors[i - start])
        left[stop:] -= chain[start:stop, stop:].T @ errors
    return refined(replace(blocks, levels=levels), weight, damped.astype(np.float32))


def refined(blocks: Blocks, weight: Array, covariance: Array) -> Blocks:
    """`blocks` moved towards a smaller variance of x @ (weight - matrix), level by level and scale by scale.

    Each level takes the value that is best with all others as they are, and behind the levels of a block so does its
    scale; nothing gets worse. covariance [d_in, d_in]: of the inputs x, each with a variance above 0.
    Behdin et al. 2023, https://arxiv.org/abs/2309.01885 (QuantEase; the scales are ours)
    """
    levels, scales, zeros = blocks.levels.copy(), blocks.scales.copy(), blocks.zeros.astype(np.float32)
    entries = blocks.matrix
    for _ in range(SWEEPS):
        pull = covariance @ (weight - entries)  # towards where each entry's product error would become less
        for block, start in enumerate(range(0, len(weight), blocks.size)):
            rows = slice(start, start + blocks.size)
            inner, near, now = covariance[rows, rows], pull[rows].copy(), entries[rows].copy()
            for i in range(len(now)):
                found = _levels(now[i] + near[i] / inner[i, i], scales[block], zeros[block], blocks.bits)
                moved = (found - zeros[block]) * scales[block] - now[i]
                levels[start + i], now[i] = found, now[i] + moved
                near -= np.outer(inner[:, i], moved)
            units = levels[rows] - zeros[block]
            weighed = (units * (inner @ units)).sum(0)
            scales[block] += np.where(weighed > 0, (units * near).sum(0) / np.where(weighed > 0, weighed, 1), 0)
            pull -= covariance[:, rows] @ (units * scales[block] - entries[rows])
            entries[rows] = units * scales[block]
    return replace(blocks, levels=levels, scales=scales)


def pack_blocks(levels: Array, bits: int, block: int) -> Array:
    """Levels [d_in, d_out] as MatMulNBits has them: uint8 [d_out, blocks, block * bits / 8], the first in low bits.

    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#commicrosoftmatmulnbits
    """
    filled = np.pad(levels, ((0, -len(levels) % block), (0, 0)), constant_values=1 << (bits - 1)).T
    blocks = filled.reshape(levels.shape[1], -1, block)
    if bits == 8:
        return np.ascontiguousarray(blocks)
    return np.ascontiguousarray(blocks[:, :, ::2] | (blocks[:, :, 1::2] << 4))


def pack_zeros(zeros: Array, bits: int) -> Array:
    """Zeros [blocks, d_out] as MatMulNBits has them: uint8 [d_out * bytes], the first of an output in low bits."""
    if bits == 8:
        return np.ascontiguousarray(zeros.T).reshape(-1)
    filled = np.pad(zeros, ((0, len(zeros) % 2), (0, 0))).T
    return np.ascontiguousarray(filled[:, ::2] | (filled[:, 1::2] << 4)).reshape(-1)


def unpack_zeros(packed: Array, d_out: int, blocks: int, bits: int) -> Array:
    """The zeros uint8 [d_out, blocks] of what `pack_zeros` has packed."""
    rows = packed.reshape(d_out, -1)
    return rows if bits == 8 else np.stack([rows & 15, rows >> 4], -1).reshape(d_out, -1)[:, :blocks]


def unpack_blocks(packed: Array, bits: int) -> Array:
    """The levels uint8 [d_out, blocks, block] of what `pack_blocks` has packed."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1)


def _blocks(weight: Array, importance: Array, bits: int, size: int) -> Blocks:
    starts = range(0, len(weight), size)
    found = [_best_block(weight[i : i + size], importance[i : i + size], bits) for i in starts]
    scales, zeros = (np.stack(values) for values in zip(*found, strict=True))
    blocks = Blocks(np.empty(weight.shape, np.uint8), scales, zeros, bits, size)
    levels = _levels(weight, blocks.of_rows(scales), blocks.of_rows(zeros), bits).astype(np.uint8)
    return replace(blocks, levels=levels)


def _best_block(rows: Array, importance: Array, bits: int) -> tuple[Array, Array]:
    """The scale and the zero [d_out] of least error for `rows` [size, d_out]; row i counts importance[i]."""
    low, high = np.minimum(rows.min(0), 0), np.maximum(rows.max(0), 0)
    best = np.full(rows.shape[1], np.inf, np.float32)
    scales, zeros = np.zeros(rows.shape[1], np.float32), np.zeros(rows.shape[1], np.uint8)
    for share in SHRINK:
        scale = (share * (high - low) / ((1 << bits) - 1)).astype(np.float32)
        zero = np.clip(np.round(-share * low / np.where(scale == 0, 1, scale)), 0, (1 << bits) - 1)
        errors = importance @ np.square((_levels(rows, scale, zero, bits) - zero) * scale - rows)
        better = errors < best
        best, scales = np.where(better, errors, best), np.where(better, scale, scales)
        zeros = np.where(better, zero, zeros).astype(np.uint8)
    return scales, zeros


def _levels(rows: Array, scales: Array, zeros: Array, bits: int) -> Array:
    """The levels of `rows`, as float32."""
    return np.clip(np.round(rows / np.where(scales == 0, 1, scales)) + zeros, 0, (1 << bits) - 1).astype(np.float32)
