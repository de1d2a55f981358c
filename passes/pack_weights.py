"""int8 weights in four bits in the file, int8 again when a session is made."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.opsets import raise_opset
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.int8.blockwise import Rounding, check_blocks
from onnxslim_bert.rewriting.int8.int8_matrices import Int8Matrix, int8_matrices, pack, second_moment
from onnxslim_bert.rewriting.int8.packed_weight import OPSET
from onnxslim_bert.rewriting.int8.saturation import can_saturate
from onnxslim_bert.rewriting.options import write_option
from onnxslim_bert.wording import plural

BITS = (4, 3, 2)
WHOLE = 8  # bits of a matrix that stays as it is


@dataclass(frozen=True)
class PackWeights(Pass):
    """Store the int8 weights of dense layers in four bits an entry; ONNX Runtime makes int8 of them as it loads.

    The file holds levels, and a zero and a span for each `block` inputs of an output, and standard operators that
    restore the int8 matrix. They read constants alone, so ONNX Runtime computes them when a session is made: the graph
    that runs multiplies in int8, as fast as before, and takes as much memory. Example: of a MiniLM in int8 the dense
    weights take 10.6 MB, with bits=4 6.0.

    Runs behind what quantizes, and last: no encoder is read in such a file, until `canonicalize` folds it to int8.

    bits: of an entry, 4, 3 or 2; or those of each int8 matrix, as 4/8/3, where one of 8 stays as it is: layer by layer
        query, key, value, output, gate, up and down, as far as there are such, then others as the graph reads them.
    block: inputs that share a zero and a span, a power of two from 16 up.
    rounding: gptq rounds the rows of a matrix one after the other, and the rows still to come make up for each error,
        as `quantize-blockwise` does. It needs calibration rows. nearest rounds every entry by itself.

    Frantar et al. 2022, https://arxiv.org/abs/2210.17323 (GPTQ); Behdin et al. 2023,
    https://arxiv.org/abs/2309.01885 (levels one by one)
    """

    name: ClassVar[str] = "pack-weights"
    ends_encoder: ClassVar[bool] = True
    bits: tuple[int, ...] = (4,)
    block: int = 32
    rounding: Rounding = "gptq"

    def __post_init__(self) -> None:
        super().__post_init__()
        for bits in self.bits or (0,):
            known = BITS if len(self.bits) < 2 else (WHOLE, *BITS)
            check_blocks(self.name, bits, known, self.block, self.rounding)

    def wants(self, model: Model) -> Iterable[Want]:
        if self.rounding == "nearest":
            return []
        sources = dict.fromkeys(linear.source for matrix, _ in self._narrowed(model) for linear in matrix.readers)
        return [Want(name, "gram") for name in sources]

    def apply(self, model: Model, ctx: Context) -> Change:
        narrowed = self._narrowed(model)
        if not narrowed:
            return Change(0, "no dense layer has int8 weights of 4,096 entries or more; quantize-static writes them")
        if reason := raise_opset(model.graph, OPSET):
            raise PassError(f"{self.name}: needs opset {OPSET}, and {reason}; leave the pass out")
        lost, size = 0.0, 0.0
        build = Builder(model.graph, "packed")
        for matrix, bits in narrowed:
            values = matrix.values(model)
            moment = None if self.rounding == "nearest" else second_moment(matrix, ctx.stats)
            packed = pack(values, moment, bits, self.block)
            error = packed.restored.astype(np.float32) - values
            if can_saturate(packed.restored).any() and not can_saturate(values).any():
                raise PassError(
                    f"{self.name}: weight {matrix.weight!r} keeps sums of two products within 16 bits (reduce-range), "
                    f"and in {bits} bits it does not; leave the pass or reduce-range out"
                )
            lost, size = lost + float(np.square(error).sum()), size + float(np.square(values.astype(np.float32)).sum())
            restored = packed.write(build)
            restored = build.node("Transpose", "matrix", [restored], perm=[1, 0]) if matrix.trans_b else restored
            redirect(model.graph, model.constants()[matrix.weight], restored)
        model.changed()
        relative = (lost / max(size, 1e-30)) ** 0.5
        found = write_option(tuple(sorted({bits for _, bits in narrowed}, reverse=True)))
        note = f"{plural(len(narrowed), 'int8 weight')} in {found} bits ({self.rounding}), int8 again when loaded"
        return Change(len(narrowed), f"{note}; relative error {relative:.3f}", {"error": relative})

    def _narrowed(self, model: Model) -> list[tuple[Int8Matrix, int]]:
        """The matrices to store in fewer bits, and in how many. Raises PassError for bits of more or fewer matrices."""
        every = int8_matrices(model)
        bits = self.bits if len(self.bits) > 1 else self.bits * len(every)
        if len(bits) != len(every):
            found = plural(len(every), "int8 matrix", "int8 matrices")
            raise PassError(f"{self.name}: bits={write_option(bits)} are for {len(bits)}, and the model has {found}")
        return [
            (matrix, width) for matrix, width in zip(every, bits, strict=True) if width != WHOLE and matrix.is_large
        ]
