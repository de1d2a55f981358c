"""Dense weights in four bits, with a scale for each block of inputs: the smallest file that keeps its answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Gram, Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import MICROSOFT
from onnxslim_bert.model.dense import dense_layers
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.int8.blockwise import Rounding, check_blocks, gptq, pack_blocks, pack_zeros, round_blocks
from onnxslim_bert.rewriting.pruning.least_squares import moments
from onnxslim_bert.wording import plural

BITS = (4, 8)
ACCURACY_LEVEL = {"int8": 4, "float32": 1}


@dataclass(frozen=True)
class QuantizeBlockwise(Pass):
    """Store the weights of dense layers in four bits an entry, as com.microsoft.MatMulNBits; activations stay float.

    This is for size: a matrix takes an eighth of its float32 bytes, and a scale and a zero for every `block` inputs of
    an output. It is no faster than float32 on most CPUs. Example: 384 x 384 in float32 are 590 kB; with bits=4,
    block=64 they are 84 kB.

    bits: of an entry, 4 or 8.
    block: inputs that share a scale and a zero, a power of two from 16 up.
    rounding: gptq rounds the rows of a matrix one after the other, and the rows still to come make up for each error;
        then it moves levels and scales one by one while the products get nearer; the mean error that is left goes into
        the bias. It needs calibration rows. nearest rounds every entry by itself and needs no data.
    compute: int8 rounds activations too, block by block at run time, and multiplies integers; float32 unpacks the
        weights and multiplies floats.

    Frantar et al. 2022, https://arxiv.org/abs/2210.17323 (GPTQ); Behdin et al. 2023,
    https://arxiv.org/abs/2309.01885 (levels one by one); Dettmers and Zettlemoyer 2022,
    https://arxiv.org/abs/2212.09720 (blocks of four bits)
    """

    name: ClassVar[str] = "quantize-blockwise"
    bits: int = 4
    block: int = 64
    rounding: Rounding = "gptq"
    compute: Literal["int8", "float32"] = "int8"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_blocks(self.name, self.bits, BITS, self.block, self.rounding)
        if self.compute not in ACCURACY_LEVEL:
            raise PassError(f"quantize-blockwise: compute={self.compute!r} is not one of {', '.join(ACCURACY_LEVEL)}")

    def wants(self, model: Model) -> Iterable[Want]:
        sources = dict.fromkeys(linear.source for linear in dense_layers(model))
        return [Want(source, "gram") for source in sources] if self.rounding == "gptq" else []

    def apply(self, model: Model, ctx: Context) -> Change:
        linears = dense_layers(model)
        stored: dict[tuple[str, bool], list[Linear]] = {}
        for linear in linears:
            stored.setdefault((linear.weight, linear.trans_b), []).append(linear)
        lost, size = 0.0, 0.0
        for (_, trans_b), readers in stored.items():
            weight = model.array(readers[0].weight)
            grams = [ctx.stats[Want(x.source, "gram")] for x in readers] if self.rounding == "gptq" else []
            error = self._write(model, readers, weight.T if trans_b else weight, grams)
            lost, size = lost + float(np.square(error).sum()), size + float(np.square(weight).sum())
        model.changed()
        relative = (lost / max(size, 1e-30)) ** 0.5
        note = f"{plural(len(linears), 'dense layer')} in {self.bits} bits ({self.rounding})"
        note += f", relative error {relative:.3f}"
        return Change(len(linears), note, {"error": relative})

    def _write(self, model: Model, readers: Sequence[Linear], weight: Array, grams: Sequence[Gram]) -> Array:
        """Let the layers that share `weight` [d_in, d_out] read it in blocks; return what rounding took off it."""
        if grams:
            blocks = gptq(weight, moments(grams)[0], self.bits, self.block)
        else:
            blocks = round_blocks(weight, self.bits, self.block)
        error: Array = weight - blocks.matrix
        build = Builder(model.graph, readers[0].weight)
        stored = [
            build.constant("blocks", pack_blocks(blocks.levels, self.bits, self.block)),
            build.constant("scales", np.ascontiguousarray(blocks.scales.T).reshape(-1)),
            build.constant("zeros", pack_zeros(blocks.zeros, self.bits)),
        ]
        tensors, nodes = model.graph.tensors(), {node.name: node for node in model.graph.nodes}
        for i, linear in enumerate(readers):
            product = build.node(
                "MatMulNBits",
                "product",
                [nodes[linear.node].inputs[0], *stored],
                MICROSOFT,
                K=linear.d_in,
                N=linear.d_out,
                bits=self.bits,
                block_size=self.block,
                accuracy_level=ACCURACY_LEVEL[self.compute],
            )
            bias = model.array(linear.bias) if linear.bias else None
            if grams:
                shift = (grams[i].sums / grams[i].rows) @ error
                bias = (shift if bias is None else bias + shift).astype(np.float32)
            if bias is not None:
                product = build.node("Add", "biased", [product, build.constant("bias", bias)])
            redirect(model.graph, tensors[linear.result], product)
        return error
