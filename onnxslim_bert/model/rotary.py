"""Rotary positions: channels of query and key turned in pairs, by an angle that grows with the position.

Exporters write x cos + turned(x) sin, where turned puts the negative second half of a head's channels before the first
half. com.microsoft's RotaryEmbedding computes the same of [batch, seq, heads * size] with half of cos and sin, because
their halves are equal. Su et al. 2021, https://arxiv.org/abs/2104.09864
"""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import MICROSOFT, producer


@dataclass(frozen=True)
class Rotation:
    """Turns `source`, a view of a query or key; cos and sin have one row a position, [1, .., seq, .., size].

    by_row: each row of the batch has positions of its own, as an input gives them: [batch, .., seq, .., size].
    """

    source: gs.Tensor
    cos: gs.Tensor
    sin: gs.Tensor
    by_row: bool = False

    def write(self, build: Builder, tensor: gs.Tensor, heads: int, size: int) -> gs.Tensor:
        """One node that turns `tensor` [batch, seq, heads * size]; layers with the same angles share their halves."""
        cos, sin = (_half(build, angles, size) for angles in (self.cos, self.sin))
        start = _places(build, tensor, cos) if self.by_row else build.constant("start", np.zeros(1, np.int64))
        return build.node("RotaryEmbedding", "rotated", [tensor, start, cos, sin], MICROSOFT, num_heads=heads)


def rotation(tensor: gs.Tensor, moving: set[int]) -> Rotation | None:
    """The rotation that gives `tensor`, if one does, by the nodes around it; that they turn so is left to be proven.

    moving: the ids of the tensors that depend on query, key or value; the angles must not.
    """
    node = producer(tensor)
    products = [producer(t) for t in node.inputs] if node is not None and node.op == "Add" else []
    if len(products) != 2 or any(product is None or product.op != "Mul" for product in products):
        return None
    parts: list[tuple[gs.Tensor, gs.Tensor]] = []
    for product in products:
        given = sorted(product.inputs, key=lambda t: id(t) not in moving)  # type: ignore[union-attr]
        if [id(t) in moving for t in given] != [True, False]:
            return None
        parts.append((given[0], given[1]))
    for (kept, cos), (turned, sin) in (parts, parts[::-1]):
        if _turned(turned) is kept:
            return Rotation(kept, cos, sin)
    return None


def turned_by(values: Array, cos: Array, sin: Array, heads: int) -> Array | None:
    """values [batch, seq, heads * size] turned by angles of which cos and sin have a row for each position.

    None where the angles are not of this form: for each position alike in all heads and in both halves, and alike in
    all rows of the batch or given for each.
    """
    batch, seq, width = values.shape
    size = width // heads
    if any(angles.size not in (seq * size, batch * seq * size) or angles.shape[-1] != size for angles in (cos, sin)):
        return None
    rows = [angles.reshape(-1, seq, 1, size) for angles in (cos, sin)]
    if any(not np.array_equal(row[..., : size // 2], row[..., size // 2 :]) for row in rows):
        return None
    first, second = np.split(values.reshape(batch, seq, heads, size), 2, axis=-1)
    c, s = (row[..., : size // 2] for row in rows)
    return np.concatenate([first * c - second * s, second * c + first * s], -1).reshape(values.shape)


def _turned(tensor: gs.Tensor) -> gs.Tensor | None:
    """What `tensor` is the turned form of: a Concat of the negative second half and the first."""
    joined = producer(tensor)
    if joined is None or joined.op != "Concat" or len(joined.inputs) != 2:
        return None
    negative, first = (producer(half) for half in joined.inputs)
    second = producer(negative.inputs[0]) if negative is not None and negative.op == "Neg" else None
    if first is None or second is None or {first.op, second.op} not in ({"Slice"}, {"Split"}):
        return None
    return first.inputs[0] if first.inputs[0] is second.inputs[0] else None


def _places(build: Builder, tensor: gs.Tensor, cos: gs.Tensor) -> gs.Tensor:
    """The row of `cos` [batch * seq, size / 2], or [seq, size / 2], for each token of `tensor`: [batch, seq].

    Layers with the same angles share it.
    """
    zero, one, last = (build.constant("number", np.array(n)) for n in (0, 1, [0]))
    shape = build.once("Shape", f"{cos.name}/tokens", [tensor], end=2)
    tokens = build.once("ReduceProd", f"{cos.name}/count", [shape], keepdims=0)
    rows = build.once("Gather", f"{cos.name}/size", [build.once("Shape", f"{cos.name}/shape", [cos]), last])
    each = build.once("Mod", f"{cos.name}/row", [build.once("Range", f"{cos.name}/range", [zero, tokens, one]), rows])
    return build.once("Reshape", f"{cos.name}/places", [each, shape])


def _half(build: Builder, angles: gs.Tensor, size: int) -> gs.Tensor:
    """The first half of each row of `angles`, [seq, size / 2]."""
    ends = [build.constant("end", np.array([end], np.int64)) for end in (0, size // 2, -1)]
    half = build.once("Slice", f"{angles.name}/half", [angles, *ends])
    return build.once("Reshape", f"{angles.name}/rows", [half, build.constant("rows", np.array([-1, size // 2]))])
