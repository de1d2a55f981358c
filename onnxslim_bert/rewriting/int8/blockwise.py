"""Matrices in four or eight bits an entry, with a scale for each block of inputs: rounding, GPTQ and packing."""

import numpy as np

from onnxslim_bert.arrays import Array

SHRINK = np.linspace(0.6, 1.0, 17)  # scales tried for a block: these times the one that reaches its largest entry
DAMPING = 0.01  # times the mean variance is added to each variance, so that the inverse exists
AT_ONCE = 128  # inputs that are rounded before their errors are passed on to all later inputs, in one product


def round_blocks(weight: Array, bits: int, block: int) -> tuple[Array, Array]:
    """Levels uint8 [d_in, d_out] and scales float32 [blocks, d_out] nearest to `weight` [d_in, d_out].

    An entry is (level - 2**(bits - 1)) * scale; the scale of a block of `block` inputs has the least squared error.
    """
    scales = _scales(weight, np.ones(len(weight), np.float32), bits, block)
    return _levels(weight, np.repeat(scales, block, axis=0)[: len(weight)], bits), scales


def gptq(weight: Array, covariance: Array, bits: int, block: int) -> tuple[Array, Array]:
    """Levels and scales as `round_blocks` gives them, but chosen for the product x @ weight, not for the weight.

    covariance [d_in, d_in]: of the inputs x. Rows of the weight are rounded one after the other, and the error of each
    is made up for by the rows still to come. So the variance of the product's error becomes small; its mean is left to
    a bias. Rows of inputs with large variance go first, while most others are still there to make up for them.
    Frantar et al. 2022, https://arxiv.org/abs/2210.17323
    """
    damped = covariance.astype(np.float64)
    damped[np.diag_indices(len(damped))] += DAMPING * float(np.trace(damped)) / len(damped) or 1.0
    scales = _scales(weight, np.diag(damped).astype(np.float32), bits, block)
    order = np.argsort(-np.diag(damped), kind="stable")
    steps = np.repeat(scales, block, axis=0)[order]
    # upper triangular with inverse(damped) = chain.T @ chain: row i tells what input i's error asks of later inputs
    chain = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T.astype(np.float32)
    left = weight[order].astype(np.float32)
    levels = np.empty(weight.shape, np.uint8)
    for start in range(0, len(left), AT_ONCE):
        stop = min(start + AT_ONCE, len(left))
        errors = np.empty((stop - start, left.shape[1]), np.float32)
        for i in range(start, stop):
            levels[order[i]] = _levels(left[i], steps[i], bits)
            errors[i - start] = (left[i] - _entries(levels[order[i]], steps[i], bits)) / chain[i, i]
            left[i + 1 : stop] -= np.outer(chain[i, i + 1 : stop], errors[i - start])
        left[stop:] -= chain[start:stop, stop:].T @ errors
    return levels, scales


def restore_blocks(levels: Array, scales: Array, bits: int, block: int) -> Array:
    """The matrix float32 [d_in, d_out] that levels and scales stand for."""
    return _entries(levels, np.repeat(scales, block, axis=0)[: len(levels)], bits)


def pack_blocks(levels: Array, bits: int, block: int) -> Array:
    """Levels [d_in, d_out] as MatMulNBits has them: uint8 [d_out, blocks, block * bits / 8], the first in low bits.

    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#commicrosoftmatmulnbits
    """
    filled = np.pad(levels, ((0, -len(levels) % block), (0, 0)), constant_values=1 << (bits - 1)).T
    blocks = filled.reshape(levels.shape[1], -1, block)
    if bits == 8:
        return np.ascontiguousarray(blocks)
    return np.ascontiguousarray(blocks[:, :, ::2] | (blocks[:, :, 1::2] << 4))


def unpack_blocks(packed: Array, bits: int) -> Array:
    """The levels uint8 [d_out, blocks, block] of what `pack_blocks` has packed."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1)


def _scales(weight: Array, importance: Array, bits: int, block: int) -> Array:
    starts = range(0, len(weight), block)
    return np.stack([_best_scale(weight[i : i + block], importance[i : i + block], bits) for i in starts])


def _best_scale(rows: Array, importance: Array, bits: int) -> Array:
    """The scale [d_out] of least error for `rows` [block, d_out], where the error of row i counts importance[i]."""
    # the largest entry takes the lowest level, -2**(bits - 1), so the scale has the other sign
    extreme = np.take_along_axis(rows, np.abs(rows).argmax(0)[None], 0)[0]
    best, scales = np.full(rows.shape[1], np.inf, np.float32), np.zeros(rows.shape[1], np.float32)
    for share in SHRINK:
        tried = (-share * extreme / (1 << (bits - 1))).astype(np.float32)
        errors = importance @ np.square(_entries(_levels(rows, tried, bits), tried, bits) - rows)
        better = errors < best
        best, scales = np.where(better, errors, best), np.where(better, tried, scales)
    return scales


def _levels(rows: Array, scales: Array, bits: int) -> Array:
    ratio = rows / np.where(scales == 0, 1, scales)
    return np.clip(np.round(ratio) + (1 << (bits - 1)), 0, (1 << bits) - 1).astype(np.uint8)


def _entries(levels: Array, scales: Array, bits: int) -> Array:
    return (levels.astype(np.float32) - (1 << (bits - 1))) * scales
