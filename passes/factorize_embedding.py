"""Store the word embeddings as two thin matrices."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.embeddings import table_of
from onnxslim_bert.model.halves import remedy
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.weights.factors import principal_axes, project, rank_of_energy, rotation, weighted_moments

UNSET = -1
ENERGY = 0.9


@dataclass(frozen=True)
class FactorizeEmbedding(Pass):
    """Store the word table [vocab, hidden] as left [vocab, rank] @ right [rank, hidden] + the mean row.

    The graph looks rows up in `left` and multiplies them by `right`, a dense layer like any other. Example: 30,522 x
    384 at rank 128 is 15.8 MB instead of 46.9 MB.

    Of all products of that rank it is the one with the least squared error over the table's rows, where each row counts
    as often as calibration texts use its token, plus `smoothing`. So frequent tokens keep their vectors best. Between
    left and right stands a rotation and its inverse, which changes no product and makes int8 factors more exact.

    Give one of rank, energy and size, or none for energy=0.9:
    rank: columns of `left`.
    energy: the share of the weighted variance that is kept, in (0, 1].
    size: megabytes that both factors may take in float32.

    smoothing: added to every token's count, above 0, because unseen tokens matter too. Example: with 0.1 a token seen
    twice counts 2.1 and an unseen one 0.1.

    Lan et al. 2020, https://arxiv.org/abs/1909.11942 (ALBERT's factors); Chen et al. 2018,
    https://arxiv.org/abs/1806.06950 (frequency weights)
    """

    name: ClassVar[str] = "factorize-embedding"
    rank: int = UNSET
    energy: float = UNSET
    size: float = UNSET
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {name: x for name in ("rank", "energy", "size") if (x := getattr(self, name)) != UNSET}
        if len(given) > 1:
            raise PassError(f"factorize-embedding: {' and '.join(given)} are given; give one of rank, energy and size")
        for name, value in given.items():
            if value <= 0 or (name == "energy" and value > 1):
                raise PassError(f"factorize-embedding: {name}={value} is not {NEEDED[name]}")
        if self.smoothing <= 0:
            raise PassError(f"factorize-embedding: smoothing={self.smoothing} is not above 0")

    def wants(self, model: Model) -> Iterable[Want]:
        ids = model.encoder.embeddings.ids
        return [Want(ids, "counts")] if ids and not _why_not(model) else []

    def apply(self, model: Model, ctx: Context) -> Change:
        embeddings = model.encoder.embeddings
        if reason := _why_not(model):
            return Change(0, reason)
        assert embeddings.word is not None
        table = model.array(embeddings.word)
        (want,) = self.wants(model)
        counts = ctx.stats[want]
        rows = np.arange(len(counts)) if embeddings.map is None else model.array(embeddings.map)[: len(counts)]
        mean, covariance = weighted_moments(table, np.bincount(rows, counts, len(table)) + self.smoothing)
        variances, axes = principal_axes(covariance)
        rank = self._rank(table, variances)
        kept = axes[:, :rank] @ rotation(rank)
        left = project(table, mean, kept)
        lost = float(np.sqrt(variances[rank:].sum() / max(variances.sum(), 1e-30)))
        before, after = table.nbytes, left.nbytes + kept.size * 4
        if after >= before and self.rank == UNSET:
            return Change(0, f"it takes rank {rank} of {table.shape[1]}, and factors larger than the table itself")
        write_factors(model, embeddings.word, left, kept.T.astype(np.float32), mean.astype(np.float32))
        note = f"rank {rank} of {table.shape[1]}, {before / 1e6:.1f} -> {after / 1e6:.1f} MB, weighted error {lost:.3f}"
        return Change(1, note, {"rank": rank, "error": lost})

    def _rank(self, table: Array, variances: Array) -> int:
        rows, width = table.shape
        rank = self.rank
        if self.size != UNSET:
            rank = int(self.size * 1e6 / (4 * (rows + width)))
        elif rank == UNSET:
            rank = rank_of_energy(variances, ENERGY if self.energy == UNSET else self.energy)
        if not 1 <= rank <= width:
            asked = f"size={self.size} MB is rank {rank}, which" if self.size != UNSET else f"rank={rank}"
            raise PassError(f"factorize-embedding: {asked} is not within 1 and {width}, the width of the word table")
        return rank


NEEDED = {"rank": "1 or more", "energy": "in (0, 1]", "size": "above 0"}


def write_factors(model: Model, table: str, left: Array, right: Array, mean: Array) -> None:
    """Let every lookup in `table` read rows of left [rows, rank] instead, and multiply them by right [rank, width]."""
    build = Builder(model.graph, table)
    rows, matrix, bias = (build.constant(*pair) for pair in (("left", left), ("right", right), ("mean", mean)))
    for node in list(model.graph.tensors()[table].outputs):
        looked_up = build.node("Gather", "rows", [rows, node.inputs[1]], axis=0)
        product = build.node("MatMul", "product", [looked_up, matrix])
        redirect(model.graph, node.outputs[0], build.node("Add", "vectors", [product, bias]))
    model.changed()


def _why_not(model: Model) -> str:
    """Why the word table cannot have factors, or nothing. Raises PassError when it is no float32 table."""
    embeddings, tensors = model.encoder.embeddings, model.graph.tensors()
    if embeddings.word is None:
        raise PassError("factorize-embedding: the graph looks no words up in a table")
    if embeddings.projection is not None:
        width, hidden = embeddings.projection.d_in, embeddings.projection.d_out
        return f"the embeddings have factors already: width {width}, projected to {hidden}"
    table = tensors[embeddings.word]
    if (dtype := table.values.dtype) != np.float32:
        raise PassError(f"the word table {table.name!r} is {dtype}; {remedy(model.graph, dtype)}")
    others = [node.name for node in table.outputs if table_of(node) is not table or node.op != "Gather"]
    others += [x.node for x in model.encoder.head if _is_transposed(constant(tensors[x.weight]), table.values)]
    return f"the word table is the matrix at node {others[0]!r} too, which needs it whole" if others else ""


def _is_transposed(weight: Array | None, table: Array) -> bool:
    return weight is not None and weight.shape == table.T.shape and np.array_equal(weight.T, table)
