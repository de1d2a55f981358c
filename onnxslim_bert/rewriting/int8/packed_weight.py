"""An int8 matrix in four, three or two bits an entry in the file, which ONNX Runtime restores when a session is made.

What restores it are standard operators on constants, which ONNX Runtime folds: the graph that runs multiplies an int8
constant as before.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.rewriting.int8.blockwise import Blocks
from onnxslim_bert.rewriting.int8.quantizers import SIGNED_LIMIT
from onnxslim_bert.rewriting.weights.packed_rows import PLANES

OPSET = 21  # the first in which QuantizeLinear has a scale and a zero point for each block


@dataclass(frozen=True)
class PackedWeight:
    """An int8 matrix [d_in, d_out]: an entry is zero + level * span / top, rounded; top = 2**bits - 1.

    levels: uint8 [blocks * block, d_out], up to top; those past d_in fill the last block. zeros: int8 [blocks, d_out],
    what level 0 stands for. spans: uint8 [blocks, d_out], how many int8 steps the levels reach over, 1 or more.
    d_in: rows.
    """

    levels: Array
    zeros: Array
    spans: Array
    bits: int
    d_in: int

    @classmethod
    def of(cls, blocks: Blocks) -> "PackedWeight":
        """The packed form of a matrix in blocks whose entries are int8 steps."""
        top, below = _top(blocks.bits), blocks.zeros.astype(np.float32)
        most = SIGNED_LIMIT * top / np.maximum(below, top - below)  # of a span whose ends are int8
        spans = np.clip(np.minimum(np.rint(blocks.scales * top), np.floor(most)), 1, 255)
        zeros = np.rint(-below * spans / top).astype(np.int8)
        levels = np.pad(blocks.levels, ((0, -len(blocks.levels) % blocks.size), (0, 0)))
        return cls(levels, zeros, spans.astype(np.uint8), blocks.bits, len(blocks.levels))

    @property
    def restored(self) -> Array:
        """The matrix that the graph computes, int8 [d_in, d_out]."""
        repeated = (np.repeat(x, len(self.levels) // len(self.spans), 0) for x in (self._scales, self.zeros))
        scales, zeros = (x.astype(np.float32) for x in repeated)
        found: Array = (np.rint(self.levels / scales) + zeros).astype(np.int8)
        return found[: self.d_in]

    @property
    def _scales(self) -> Array:
        """Levels a step, float16 [blocks, d_out]."""
        return (np.float32(_top(self.bits)) / self.spans).astype(np.float16)

    def write(self, build: Builder) -> gs.Tensor:
        """The matrix, int8 [d_in, d_out], computed of constants alone.

        In 16 bits and less, as ONNX Runtime keeps the memory of all that it folds.

        https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
        """
        levels = None
        low = 0
        for width in PLANES[self.bits]:
            part = _unpacked(build, (self.levels >> low) & ((1 << width) - 1), width)
            part = _shift(build, part, low, "LEFT")
            levels = part if levels is None else build.node("BitwiseOr", "levels", [levels, part])
            low += width
        half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
        span = build.node("Cast", "span", [build.constant("spans", self.spans)], to=single)
        ratio = build.node("Div", "scales", [build.constant("top", np.array(_top(self.bits), np.float32)), span])
        level, scales = (build.node("Cast", "half", [x], to=half) for x in (levels, ratio))
        operands = [level, scales, build.constant("zeros", self.zeros)]
        block = len(self.levels) // len(self.spans)
        whole = build.node("QuantizeLinear", "matrix", operands, axis=0, block_size=block)
        if self.d_in == len(self.levels):
            return whole
        first, last = (build.constant("row", np.array([row], np.int64)) for row in (0, self.d_in))
        return build.node("Slice", "matrix", [whole, first, last, first])


def _top(bits: int) -> int:
    """The highest level."""
    return (1 << bits) - 1


def _unpacked(build: Builder, values: Array, width: int) -> gs.Tensor:
    """`values` [rows, columns], below 2**width: byte i holds rows i, i + n, i + 2n and so on, the first in low bits."""
    shares = 8 // width
    parts = values.reshape(shares, -1, values.shape[1])
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    packed = build.constant("packed", np.bitwise_or.reduce(parts << shifts[:, None, None], axis=0))
    cut = [_shift(build, _shift(build, packed, 8 - width - int(low), "LEFT"), 8 - width, "RIGHT") for low in shifts]
    return build.node("Concat", "rows", cut, axis=0)


def _shift(build: Builder, tensor: gs.Tensor, bits: int, direction: str) -> gs.Tensor:
    """uint8 shifted; bits that leave the byte are lost."""
    if not bits:
        return tensor
    return build.node(
        "BitShift", "bits", [tensor, build.constant("shift", np.array(bits, np.uint8))], direction=direction
    )
