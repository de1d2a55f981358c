"""Store the word embeddings in two, three or four bits an entry."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.model.dense import embeddings_of
from onnxslim_bert.model.embeddings import table_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.weights.packed_rows import PLANES, PackedRows, middle, pack_rows


@dataclass(frozen=True)
class QuantizeEmbedding(Pass):
    """Store each row of the word table in a few bits an entry, and unpack the rows that a text looks up.

    One Gather fetches a row's packed bytes, another its scales, one for each `block` of columns. Standard operators
    then take the bytes apart: shifted left and right again, a byte leaves one of its entries. So only the rows of a
    text's tokens are unpacked, never the table. Example: 30,522 x 384 entries take 46.9 MB in
    float32, 11.8 MB in int8 with a scale a row, and 6.6 MB with bits=4, block=32.

    bits: of an entry, 4, 3 or 2.
    block: columns that share a scale, a multiple of 8.

    Round to nearest with the scale of least squared error a block, as in Dettmers and Zettlemoyer 2022,
    https://arxiv.org/abs/2212.09720 (small blocks) and Shen et al. 2019, https://arxiv.org/abs/1909.05840 (embeddings).
    """

    name: ClassVar[str] = "quantize-embedding"
    bits: int = 4
    block: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits not in PLANES:
            raise PassError(f"quantize-embedding: bits={self.bits} is not one of {', '.join(map(str, PLANES))}")
        if self.block < 8 or self.block % 8:
            raise PassError(f"quantize-embedding: block={self.block} is not a multiple of 8, from 8 up")

    def apply(self, model: Model, ctx: Context) -> Change:
        name = embeddings_of(model).word
        if name is None:
            raise PassError("quantize-embedding: the graph looks no words up in a table")
        table = model.graph.tensors()[name]
        if table.values.dtype != np.float32:
            return Change(0, f"the word table is {table.values.dtype} already; start from the float32 model")
        others = [node.name for node in table.outputs if table_of(node) is not table or node.op != "Gather"]
        if others:
            return Change(0, f"the word table is read at node {others[0]!r} too, which needs it whole")
        values = table.values
        packed = pack_rows(values, self.bits, self.block)
        size = float(np.linalg.norm(values))
        error = float(np.linalg.norm(packed.restored() - values)) / max(size, 1e-30)
        for node in list(table.outputs):
            redirect(model.graph, node.outputs[0], unpacked(Builder(model.graph, name), node.inputs[1], packed))
        model.changed()
        note = f"{values.nbytes / 1e6:.1f} -> {packed.nbytes / 1e6:.1f} MB, relative error {error:.3f}"
        return Change(1, note, {"error": error})


def unpacked(build: Builder, ids: gs.Tensor, packed: PackedRows) -> gs.Tensor:
    """The rows `ids` [batch, seq] of the packed table, float32 [batch, seq, width].

    Only Gather, BitShift, Cast, arithmetic and Reshape: https://onnx.ai/onnx/operators/onnx__BitShift.html
    """
    total: gs.Tensor | None = None
    low = 0
    for bits, plane in zip(PLANES[packed.bits], packed.planes, strict=True):
        rows = build.node("Gather", "bytes", [build.constant(f"bits{low}", plane), ids], axis=0)
        apart = build.node("Unsqueeze", "apart", [rows, build.constant("last", np.array([-1], np.int64))])
        left = build.constant(f"left{bits}", np.arange(8 - bits, -1, -bits, dtype=np.uint8))
        high = build.node("BitShift", "high", [apart, left], direction="LEFT")
        right = build.constant(f"right{bits}", np.array([8 - bits], np.uint8))
        entries = build.node("BitShift", "entries", [high, right], direction="RIGHT")
        part = build.node("Cast", "levels", [entries], to=onnx.TensorProto.FLOAT)
        if low:
            part = build.node("Mul", "weighed", [part, build.constant(f"weight{low}", np.array(1 << low, np.float32))])
        flat = [0, 0, packed.scales.shape[1], packed.block]
        part = build.node("Reshape", "blocks", [part, build.constant("in_blocks", np.array(flat, np.int64))])
        total = part if total is None else build.node("Add", "whole", [total, part])
        low += bits
    # [rows, blocks, 1]: scales of blocks are no table of vectors
    scales = build.constant("scales", packed.scales[:, :, None])
    steps = build.node("Gather", "steps", [scales, ids], axis=0)
    steps = build.node("Cast", "float_steps", [steps], to=onnx.TensorProto.FLOAT)
    centred = build.node("Sub", "centred", [total, build.constant("middle", np.array(middle(packed.bits), np.float32))])
    scaled = build.node("Mul", "scaled", [centred, steps])
    shape = build.constant("whole_rows", np.array([0, 0, packed.scales.shape[1] * packed.block], np.int64))
    rows = build.node("Reshape", "rows", [scaled, shape])
    if packed.width % packed.block == 0:
        return rows
    bounds = [build.constant(n, np.array([v], np.int64)) for n, v in (("0", 0), ("width", packed.width), ("last", -1))]
    return build.node("Slice", "columns", [rows, *bounds])
