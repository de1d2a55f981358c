"""int8 weights in four bits in the file, int8 again when a session is made."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.opsets import raise_opset
from onnxslim_bert.model.linear import Linear, is_linear, read_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.int8.blockwise import Blocks, Rounding, check_blocks, gptq, round_blocks
from onnxslim_bert.rewriting.int8.packed_weight import OPSET, PackedWeight
from onnxslim_bert.rewriting.int8.saturation import can_saturate
from onnxslim_bert.wording import plural

BITS = (4, 3, 2)
FEWEST = 4096  # entries of a matrix from which the nodes that restore it are worth their bytes


@dataclass(frozen=True)
class PackWeights(Pass):
    """Store the int8 weights of dense layers in four bits an entry; ONNX Runtime makes int8 of them as it loads.

    The file holds levels, and a zero and a span for each `block` inputs of an output, and standard operators that
    restore the int8 matrix. They read constants alone, so ONNX Runtime computes them when a session is made: the graph
    that runs multiplies in int8, as fast as before, and takes as much memory. Example: of a MiniLM in int8 the dense
    weights take 10.6 MB, with bits=4 6.0.

    Runs behind what quantizes, and last: no encoder is read in such a file, until `canonicalize` folds it to int8.

    bits: of an entry, 4, 3 or 2.
    block: inputs that share a zero and a span, a power of two from 16 up.
    rounding: gptq rounds the rows of a matrix one after the other, and the rows still to come make up for each error,
        as `quantize-blockwise` does. It needs calibration rows. nearest rounds every entry by itself.

    Frantar et al. 2022, https://arxiv.org/abs/2210.17323 (GPTQ); Behdin et al. 2023,
    https://arxiv.org/abs/2309.01885 (levels one by one)
    """

    name: ClassVar[str] = "pack-weights"
    ends_encoder: ClassVar[bool] = True
    bits: int = 4
    block: int = 32
    rounding: Rounding = "gptq"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_blocks(self.name, self.bits, BITS, self.block, self.rounding)

    def wants(self, model: Model) -> Iterable[Want]:
        if self.rounding == "nearest":
            return []
        return [Want(name, "gram") for name in dict.fromkeys(linear.source for linear in int8_layers(model))]

    def apply(self, model: Model, ctx: Context) -> Change:
        stored: dict[tuple[str, bool], list[Linear]] = {}
        for linear in int8_layers(model):
            stored.setdefault((linear.weight, linear.trans_b), []).append(linear)
        if not stored:
            return Change(0, "no dense layer has int8 weights of 4,096 entries or more; quantize-static writes them")
        if reason := raise_opset(model.graph, OPSET):
            raise PassError(f"{self.name}: needs opset {OPSET}, and {reason}; leave the pass out")
        lost, size = 0.0, 0.0
        build = Builder(model.graph, "packed")
        for (name, trans_b), readers in stored.items():
            values = model.array(name)
            matrix = values.T if trans_b else values
            packed = PackedWeight.of(self._blocks(matrix.astype(np.float32), readers, ctx))
            error = packed.restored.astype(np.float32) - matrix
            if can_saturate(packed.restored).any() and not can_saturate(matrix).any():
                raise PassError(
                    f"{self.name}: weight {name!r} keeps sums of two products within 16 bits (reduce-range), and in "
                    f"{self.bits} bits it does not; leave the pass or reduce-range out"
                )
            lost, size = lost + float(np.square(error).sum()), size + float(np.square(matrix.astype(np.float32)).sum())
            restored = packed.write(build)
            restored = build.node("Transpose", "matrix", [restored], perm=[1, 0]) if trans_b else restored
            redirect(model.graph, model.constants()[name], restored)
        model.changed()
        relative = (lost / max(size, 1e-30)) ** 0.5
        note = f"{plural(len(stored), 'int8 weight')} in {self.bits} bits ({self.rounding}), int8 again when loaded"
        return Change(len(stored), f"{note}; relative error {relative:.3f}", {"error": relative})

    def _blocks(self, matrix: Array, readers: list[Linear], ctx: Context) -> Blocks:
        if self.rounding == "nearest":
            return round_blocks(matrix, self.bits, self.block)
        grams = [ctx.stats[Want(linear.source, "gram")] for linear in readers]
        moment = np.sum([gram.products for gram in grams], 0) / sum(gram.rows for gram in grams)
        return gptq(matrix, moment, self.bits, self.block)


def int8_layers(model: Model) -> list[Linear]:
    """The dense layers whose int8 weights are large enough."""
    found = [read_linear(node) for node in model.graph.nodes if is_linear(node)]
    return [x for x in found if x.quantized and _is_packable(model.array(x.weight))]


def _is_packable(values: Array) -> bool:
    return values.dtype == np.int8 and values.ndim == 2 and values.size >= FEWEST
