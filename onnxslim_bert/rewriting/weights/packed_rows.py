"""Store a table in two, three or four bits an entry: packed into bytes, with a scale for each block of columns."""

from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array

PLANES: dict[int, tuple[int, ...]] = {4: (4,), 3: (2, 1), 2: (2,)}  # bits that lie together in a byte, lowest first
SHRINK = np.linspace(0.5, 1.0, 21)  # scales tried for a block: these times the one that reaches its largest entry


@dataclass(frozen=True)
class PackedRows:
    """A table [rows, width] = (levels - (2**bits - 1) / 2) * scales, levels from 0 to 2**bits - 1.

    planes: the bits of the levels. Four or two bits are one plane; three bits are a plane of the lower two and a plane
    of the highest one, because three do not divide a byte. A plane of b bits is uint8 [rows, n], n = blocks * block *
    b / 8; its byte j holds columns j, j + n, j + 2n and so on, the first one in the lowest bits, so that one shift of
    whole rows leaves n neighbouring columns. Example: with four bits and 384 columns, byte 0 holds column 0 in its
    lower half and column 192 in its upper one.
    scales: float16 [rows, blocks]. The last block is filled up with zeros.
    """

    width: int
    bits: int
    block: int
    planes: tuple[Array, ...]
    scales: Array

    @property
    def nbytes(self) -> int:
        """Bytes of the planes and the scales together."""
        return sum(values.nbytes for values in (*self.planes, self.scales))

    def restored(self) -> Array:
        """The table that the packed rows stand for, float32 [rows, width]."""
        levels = np.zeros((len(self.scales), self.scales.shape[1] * self.block), np.float32)
        low = 0
        for width, plane in zip(PLANES[self.bits], self.planes, strict=True):
            shifts = np.arange(0, 8, width, dtype=np.uint8)
            values = (plane[:, None] >> shifts[:, None]) & ((1 << width) - 1)
            levels += values.reshape(len(plane), -1).astype(np.float32) * (1 << low)
            low += width
        centred = (levels - middle(self.bits)).reshape(len(levels), -1, self.block)
        return (centred * self.scales.astype(np.float32)[:, :, None]).reshape(levels.shape)[:, : self.width]


def middle(bits: int) -> float:
    """The level that stands for 0, which lies between two of them: 7.5 for four bits."""
    return ((1 << bits) - 1) / 2


def pack_rows(table: Array, bits: int, block: int) -> PackedRows:
    """The packed rows nearest to `table` [rows, width], each block with the scale of least squared error.

    Round to nearest on a grid that is symmetric around zero. block: a multiple of 8.
    """
    filled = np.pad(table.astype(np.float32), ((0, 0), (0, -table.shape[1] % block)))
    blocks = filled.reshape(len(table), -1, block)
    largest = np.abs(blocks).max(-1)
    best, scales = np.full(largest.shape, np.inf), np.zeros(largest.shape, np.float16)
    for share in SHRINK:
        tried = (largest * share / middle(bits)).astype(np.float16)
        errors = np.square(_levels(blocks, tried, bits, centred=True) - blocks).sum(-1)
        better = errors < best
        best, scales = np.where(better, errors, best), np.where(better, tried, scales)
    levels = _levels(blocks, scales, bits, centred=False).reshape(len(table), -1).astype(np.uint8)
    planes, low = [], 0
    for width in PLANES[bits]:
        part = ((levels >> low) & ((1 << width) - 1)).reshape(len(table), 8 // width, -1)
        shifts = np.arange(0, 8, width, dtype=np.uint8)
        planes.append(np.bitwise_or.reduce(part << shifts[:, None], axis=1).astype(np.uint8))
        low += width
    return PackedRows(table.shape[1], bits, block, tuple(planes), scales)


def _levels(blocks: Array, scales: Array, bits: int, *, centred: bool) -> Array:
    """The levels nearest to `blocks` [rows, blocks, block]; with `centred`, the values that they stand for instead."""
    steps = scales.astype(np.float32)[:, :, None]
    ratio = blocks / np.where(steps > 0, steps, 1)
    levels = np.clip(np.floor(ratio + middle(bits) + 0.5), 0, (1 << bits) - 1)
    return (levels - middle(bits)) * steps if centred else levels
