"""Store the word embeddings in one to four bits an entry."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.model.dense import embeddings_of
from onnxslim_bert.model.embeddings import table_of
from onnxslim_bert.model.halves import remedy
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.weights.codebooks import CodedRows, Fit, code_rows
from onnxslim_bert.rewriting.weights.norm_view import norm_view
from onnxslim_bert.rewriting.weights.packed_rows import PLANES, PackedRows, middle, pack_rows

Codebook = Literal["none", "product", "residual", "additive"]
CODED = (1, 2, 3, 4)  # bits of an entry by codebooks


@dataclass(frozen=True)
class QuantizeEmbedding(Pass):
    """Store each row of the word table in a few bits an entry, and unpack the rows that a text looks up.

    One Gather fetches a row's packed bytes, another its scales, one for each `block` of columns. Standard operators
    then take the bytes apart: shifted left and right again, a byte leaves one of its entries. So only the rows of a
    text's tokens are unpacked, never the table. Example: 30,522 x 384 entries take 46.9 MB in
    float32, 11.8 MB in int8 with a scale a row, and 6.6 MB with bits=4, block=32.

    With a codebook nothing is unpacked: one Gather fetches a row's codes, a byte each, another the centroids that they
    stand for. Centroids are fitted by k-means to the rows as the first norm scales them, where each row counts as
    often as calibration texts (or those of --corpus) use its token. Example: bits=2, codebook=product cuts a row of
    384 columns into 96 groups of 4 and gives each the number of one of 256 centroids: 2.9 MB of codes, 0.4 MB of
    centroids.

    bits: of an entry, 4, 3 or 2; with a codebook also 1, its centroids aside.
    block: columns that share a scale, a multiple of 8; without a codebook.
    codebook: none rounds entries. product: one code for a group of 8 / bits columns. residual: `codes` codes for a
        group of 8 * codes / bits columns, whose centroids are added up; each fits what the ones before it leave.
        additive: likewise, but the codes of a group are chosen, and its centroids fitted, together.
    codes: of a group of columns, with codebook=residual or additive.
    smoothing: added to every token's count, above 0, because unseen tokens matter too; with a codebook.

    Round to nearest with the scale of least squared error a block, as in Dettmers and Zettlemoyer 2022,
    https://arxiv.org/abs/2212.09720 (small blocks) and Shen et al. 2019, https://arxiv.org/abs/1909.05840 (embeddings).
    Codebooks: Jegou et al. 2011, https://hal.science/inria-00514462 (product quantization); Shu and Nakayama 2018,
    https://arxiv.org/abs/1711.01068 (sums of centroids for words); Babenko and Lempitsky 2014 (additive quantization).
    """

    name: ClassVar[str] = "quantize-embedding"
    bits: int = 4
    block: int = 32
    codebook: Codebook = "none"
    codes: int = 2
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = tuple(PLANES) if self.codebook == "none" else CODED[::-1]
        if self.bits not in allowed:
            raise PassError(f"quantize-embedding: bits={self.bits} is not one of {', '.join(map(str, allowed))}")
        if self.block < 8 or self.block % 8:
            raise PassError(f"quantize-embedding: block={self.block} is not a multiple of 8, from 8 up")
        if self.codebook not in get_args(Codebook):
            names = ", ".join(get_args(Codebook))
            raise PassError(f"quantize-embedding: codebook={self.codebook!r} is not one of {names}")
        if self.codes < 1:
            raise PassError(f"quantize-embedding: codes={self.codes} is not 1 or more")
        if self.codebook != "none" and 8 * self._stages % self.bits:
            raise PassError(
                f"quantize-embedding: {8 * self._stages} bits of codes for a group are no whole number of columns at "
                f"bits={self.bits}; give other bits, or codes=3 with residual or additive"
            )
        if self.smoothing <= 0:
            raise PassError(f"quantize-embedding: smoothing={self.smoothing} is not above 0")

    @property
    def _stages(self) -> int:
        return 1 if self.codebook == "product" else self.codes

    def wants(self, model: Model) -> Iterable[Want]:
        embeddings = embeddings_of(model)
        if self.codebook == "none" or embeddings.ids is None or embeddings.word is None:
            return []
        is_float = model.array(embeddings.word).dtype == np.float32
        return [Want(embeddings.ids, "counts")] if is_float else []

    def apply(self, model: Model, ctx: Context) -> Change:
        name = embeddings_of(model).word
        if name is None:
            raise PassError("quantize-embedding: the graph looks no words up in a table")
        table = model.graph.tensors()[name]
        if (dtype := table.values.dtype) != np.float32:
            return Change(0, f"the word table is {dtype} already; {remedy(model.graph, dtype)}")
        others = [node.name for node in table.outputs if table_of(node) is not table or node.op != "Gather"]
        if others:
            return Change(0, f"the word table is read at node {others[0]!r} too, which needs it whole")
        values = table.values
        packed = pack_rows(values, self.bits, self.block) if self.codebook == "none" else self._coded(model, ctx)
        size = float(np.linalg.norm(values))
        error = float(np.linalg.norm(packed.restored() - values)) / max(size, 1e-30)
        build = Builder(model.graph, name)
        for node in list(table.outputs):
            ids = node.inputs[1]
            rows = unpacked(build, ids, packed) if isinstance(packed, PackedRows) else decoded(build, ids, packed)
            redirect(model.graph, node.outputs[0], rows)
        model.changed()
        note = f"{values.nbytes / 1e6:.1f} -> {packed.nbytes / 1e6:.1f} MB, relative error {error:.3f}"
        return Change(1, note, {"error": error})

    def _coded(self, model: Model, ctx: Context) -> CodedRows:
        """Codes of the word table, each row and column weighed as the first norm and the texts do."""
        embeddings = embeddings_of(model)
        assert embeddings.word is not None
        table = model.array(embeddings.word)
        rows, columns = norm_view(model.graph, embeddings)
        counts = np.full(len(table), self.smoothing)
        for want in self.wants(model):
            seen = ctx.stats[want]
            read = np.arange(len(seen)) if embeddings.map is None else model.array(embeddings.map)[: len(seen)]
            counts += np.bincount(read, seen, len(table))[: len(table)]
        scale = np.maximum(columns, 1e-3 * columns.max()).astype(np.float32)
        fit = Fit(8 * self._stages // self.bits, self._stages, self.codebook == "additive")
        coded = code_rows(table * scale, counts * np.square(rows), fit)
        return coded.times(1 / scale)


def decoded(build: Builder, ids: gs.Tensor, coded: CodedRows) -> gs.Tensor:
    """The rows `ids` [batch, seq] of the coded table, float32 [batch, seq, width], by Gather, Add and Reshape."""
    rows, groups, stages = coded.codes.shape
    entries, group = coded.centroids.shape[2:]
    # stage by stage, so that what is added up lies together
    flat = np.ascontiguousarray(coded.codes.transpose(0, 2, 1)).reshape(rows, stages * groups)
    codes = build.node("Gather", "codes", [build.constant("coded", flat), ids], axis=0)
    numbers = build.node("Cast", "numbers", [codes], to=onnx.TensorProto.INT32)
    starts = build.constant("starts", np.arange(0, stages * groups * entries, entries, dtype=np.int32))
    places = build.node("Add", "places", [numbers, starts])
    # [centroids, 1, group]: centroids are no table of vectors
    centroids = np.ascontiguousarray(coded.centroids.transpose(1, 0, 2, 3)).reshape(-1, 1, group)
    parts = build.node("Gather", "parts", [build.constant("centroids", centroids), places], axis=0)
    shape = [0, 0, groups * group] if stages == 1 else [0, 0, stages, groups * group]
    whole = build.node("Reshape", "rows", [parts, build.constant("shape", np.array(shape, np.int64))])
    if stages > 1:
        numbered = (build.constant(f"stage{i}", np.array(i, np.int64)) for i in range(stages))
        terms = [build.node("Gather", "terms", [whole, stage], axis=2) for stage in numbered]
        whole = terms[0]
        for term in terms[1:]:
            whole = build.node("Add", "sum", [whole, term])
    return _columns(build, whole, coded.width) if coded.width < groups * group else whole


def unpacked(build: Builder, ids: gs.Tensor, packed: PackedRows) -> gs.Tensor:
    """The rows `ids` [batch, seq] of the packed table, float32 [batch, seq, width].

    Only Gather, BitShift, Cast, arithmetic and Reshape: https://onnx.ai/onnx/operators/onnx__BitShift.html
    """
    total: gs.Tensor | None = None
    low = 0
    for bits, plane in zip(PLANES[packed.bits], packed.planes, strict=True):
        rows = build.node("Gather", "bytes", [build.constant(f"bits{low}", plane), ids], axis=0)
        entries = build.node("Concat", "entries", _apart(build, rows, bits), axis=-1)
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
    return _columns(build, rows, packed.width)


def _apart(build: Builder, rows: gs.Tensor, bits: int) -> list[gs.Tensor | None]:
    """The entries of `bits` bits in uint8 rows, 8 / bits tensors of the same shape, from the lowest bits up.

    Shifted left, a byte loses what lies above an entry; shifted right again, what lies below it.
    """
    right = build.constant(f"right{bits}", np.array(8 - bits, np.uint8))
    parts: list[gs.Tensor | None] = []
    for above in range(8 - bits, -1, -bits):
        left = build.constant(f"left{above}", np.array(above, np.uint8))
        high = build.node("BitShift", "high", [rows, left], direction="LEFT") if above else rows
        parts.append(build.node("BitShift", "entries", [high, right], direction="RIGHT"))
    return parts


def _columns(build: Builder, rows: gs.Tensor, width: int) -> gs.Tensor:
    """The first `width` columns of rows [batch, seq, columns]."""
    bounds = [build.constant(n, np.array([v], np.int64)) for n, v in (("0", 0), ("width", width), ("last", -1))]
    return build.node("Slice", "columns", [rows, *bounds])
