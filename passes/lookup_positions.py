"""Compute RoBERTa's positions without comparisons and running sums, for providers that lack them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import constant, inputs_of, nodes_between, opsets_of, run
from onnxslim_bert.model.dense import embeddings_of
from onnxslim_bert.model.embeddings import table_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import has_fixed_shape, renew_shapes
from onnxslim_bert.rewriting.contract import Change, Context, Pass


@dataclass(frozen=True)
class LookupPositions(Pass):
    """Compute RoBERTa's positions by a lookup and a matrix product instead of comparisons and a running sum.

    RoBERTa numbers the tokens of a text from pad + 1 on and gives padding the position pad. Example: pad=1 and ids
    [0, 50, 60, 2, 1, 1] have positions [2, 3, 4, 5, 1, 1]. Exporters write Equal, Not and CumSum for this, none of
    which CoreML and NNAPI take. Here a Gather says which ids are tokens, the product with a triangular matrix of ones
    counts them, and Mul, Add and Cast do the rest.

    Exact. That the graph numbers tokens this way is proven by running it. Needs a fixed length (`fix-shapes`).
    """

    name: ClassVar[str] = "lookup-positions"
    exact: ClassVar[float | None] = 1e-5
    empty_rows: ClassVar[bool] = True

    def apply(self, model: Model, ctx: Context) -> Change:
        counted = [node for node in model.graph.nodes if table_of(node) is not None and _counts(node)]
        if not counted:
            return Change(0, "no positions are counted from token ids")
        indices = counted[0].inputs[1]
        nodes = nodes_between([], indices)
        ids, *others = inputs_of(nodes)
        if not has_fixed_shape(ids):
            raise PassError(f"lookup-positions: input {ids.name!r} has no fixed shape; run fix-shapes before")
        vocabulary = embeddings_of(model).vocabulary
        pad = None if others or vocabulary is None else find_pad(model.graph, nodes, ids, indices, vocabulary)
        if pad is None or vocabulary is None:
            return Change(0, f"positions {indices.name!r} are not RoBERTa's")
        build = Builder(model.graph, "positions")
        redirect(model.graph, indices, emit_positions(build, ids, pad, vocabulary))
        model.changed()
        renew_shapes(model)
        return Change(1, f"positions are looked up and counted by a product; padding is id {pad}")


def _counts(node: gs.Node) -> bool:
    return node.op == "Gather" and any(above.op == "CumSum" for above in nodes_between([], node.inputs[1]))


def roberta_positions(ids: Array, pad: int) -> Array:
    """Positions [batch, seq] of token ids (create_position_ids_from_input_ids in transformers' modeling_roberta.py)."""
    seen = (ids != pad).astype(ids.dtype)
    positions: Array = np.cumsum(seen, axis=1) * seen + pad
    return positions


def find_pad(graph: gs.Graph, nodes: list[gs.Node], ids: gs.Tensor, indices: gs.Tensor, vocabulary: int) -> int | None:
    """The padding id with which `nodes` compute RoBERTa's positions from `ids`; None when they compute others.

    Candidates are the whole numbers in `nodes`; each is tried on random ids below `vocabulary`, some of them padding.
    """
    written = [values for node in nodes for tensor in node.inputs if (values := constant(tensor)) is not None]
    candidates = sorted({int(values.item()) for values in written if values.size == 1 and values.dtype.kind in "iu"})
    rng = np.random.default_rng(0)
    for pad in (value for value in candidates if 0 <= value < vocabulary):
        probe = rng.integers(0, vocabulary, ids.shape)
        probe[rng.random(ids.shape) < 0.4] = pad
        try:
            found = run(nodes, {ids.name: probe.astype(ids.dtype)}, indices, opsets_of(graph))
        except ValueError:
            return None
        if np.array_equal(found, roberta_positions(probe, pad)):
            return pad
    return None


def emit_positions(build: Builder, ids: gs.Tensor, pad: int, vocabulary: int) -> gs.Tensor:
    """int32 positions [batch, seq] of token `ids`."""
    length = ids.shape[1]
    table = build.constant("is-token", (np.arange(vocabulary) != pad).astype(np.float32))
    before = build.constant("up-to", np.triu(np.ones((length, length), np.float32)))
    seen = build.node("Gather", "seen", [table, ids], axis=0)
    count = build.node("Mul", "count", [build.node("MatMul", "so-far", [seen, before]), seen])
    position = build.node("Add", "position", [count, build.constant("pad", np.array(pad, np.float32))])
    return build.node("Cast", "positions", [position], to=onnx.TensorProto.INT32)
