"""Cut heads out of the nodes of an attention, once it is known which slices are theirs (`head_slices`)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import constant, producer

HEAD_COUNTS = ("num_heads", "q_num_heads", "kv_num_heads")


@dataclass(frozen=True)
class HeadAxis:
    """The axis that holds heads: place p of it belongs to unit (p // inner) % units.

    size: of the whole axis. rank: of the tensor.
    """

    axis: int
    inner: int
    size: int
    rank: int = 0

    def places(self, units: int, kept: Array) -> Array:
        """The places of the units `kept`. Example: of 2 units with inner=3 and kept [1], 3, 4 and 5."""
        return np.flatnonzero(np.isin(np.arange(self.size) // self.inner % units, kept))


@dataclass(frozen=True)
class Edit:
    """One input of a node, or an attribute, that holds something for each head.

    node: its number in the region. place: of the input, or the name of the attribute. at: the axis of an operand, or
    the entry of a shape. is_shape: which of the two it is. free: the entry can be left to the shape's -1.
    """

    node: int
    place: int | str
    at: HeadAxis
    is_shape: bool = False
    free: bool = False

    def spans_rows(self, units: int) -> bool:
        """Whether the axis holds the heads of one row behind those of another."""
        return self.at.size != units * self.at.inner


@dataclass(frozen=True)
class HeadSlices:
    """What must change in a region so that it computes fewer of its `units` (heads, or groups that share a key).

    restored: Shape nodes, by their numbers, that must go on giving the old sizes, for what is made of them and cut.
    """

    units: int
    edits: tuple[Edit, ...]
    restored: tuple[tuple[int, HeadAxis], ...] = ()

    def keep(self, build: Builder, nodes: Sequence[gs.Node], kept: Array) -> None:
        """Let the region's `nodes` compute the units `kept` alone; its sources must hold only those already."""
        cut: dict[tuple[int, HeadAxis], gs.Tensor] = {}
        for edit in self.edits:
            node = nodes[edit.node]
            if isinstance(edit.place, str):
                node.attrs[edit.place] = node.attrs[edit.place] // self.units * len(kept)
                continue
            tensor = node.inputs[edit.place]
            if (key := (id(tensor), edit.at)) not in cut:
                cut[key] = (_resized if edit.is_shape else _taken)(build, tensor, edit, self.units, kept)
            node.inputs[edit.place] = cut[key]
        for number, at in self.restored:
            _restore(build, nodes[number], at, self.units, len(kept))


def _resized(build: Builder, shape: gs.Tensor, edit: Edit, units: int, kept: Array) -> gs.Tensor:
    """`shape` with the entry that counts heads set to what is left of them."""
    values, entry = constant(shape), edit.at.axis
    number = -1 if edit.free else edit.at.size // units * len(kept)
    if values is not None:
        return build.constant("shape", np.concatenate([values[:entry], [number], values[entry + 1 :]]).astype(np.int64))
    new: gs.Tensor = build.constant("entry", np.array([number], np.int64))
    above = producer(shape)
    pieces = list(above.inputs) if above is not None and above.op == "Concat" else []
    if entry < len(pieces) and all(map(_is_single, pieces)) and not (edit.spans_rows(units) and not edit.free):
        return build.node("Concat", "shape", [*pieces[:entry], new, *pieces[entry + 1 :]], axis=0)
    zero, here, next_, end = (
        build.constant("end", np.array([i], np.int64)) for i in (0, entry, entry + 1, np.iinfo(np.int64).max)
    )
    if edit.spans_rows(units) and not edit.free:
        old = build.node("Slice", "entry", [shape, here, next_, zero])
        more = build.node("Mul", "entry", [old, build.constant("kept", np.array([len(kept)], np.int64))])
        new = build.node("Div", "entry", [more, build.constant("units", np.array([units], np.int64))])
    before = [build.node("Slice", "before", [shape, zero, here, zero])] if entry else []
    return build.node(
        "Concat", "shape", [*before, new, build.node("Slice", "behind", [shape, next_, end, zero])], axis=0
    )


def _restore(build: Builder, node: gs.Node, at: HeadAxis, units: int, kept: int) -> None:
    """Let the Shape node `node` give the sizes of all units again."""
    result, start = node.outputs[0], node.attrs.get("start", 0)
    stop = node.attrs.get("end", at.rank)
    entry = at.axis - start
    if start < 0 or stop < 0 or not 0 <= entry < stop - start:
        return
    ones = np.ones(stop - start, np.int64)
    more, fewer = ones.copy(), ones.copy()
    more[entry], fewer[entry] = units, kept
    raw = gs.Variable(f"{result.name}/kept")
    node.outputs[0] = raw
    product = build.node("Mul", "units", [raw, build.constant("units", more)])
    restored = build.node("Div", "units", [product, build.constant("kept", fewer)])
    restored.inputs[0].outputs[0] = result


def _is_single(tensor: gs.Tensor) -> bool:
    """Whether `tensor` is known to hold one number: a constant, what Unsqueeze makes of one, or one size."""
    above, values = producer(tensor), constant(tensor)
    if above is None:
        return values is not None and values.size == 1
    if above.op == "Unsqueeze":
        source = producer(above.inputs[0])
        return source is not None and source.op in ("Gather", "Squeeze")
    return above.op == "Shape" and int(above.attrs.get("end", 0)) - int(above.attrs.get("start", 0)) == 1


def _taken(build: Builder, tensor: gs.Tensor, edit: Edit, units: int, kept: Array) -> gs.Tensor:
    """The places of `tensor` that the units `kept` have."""
    values, axis, block = constant(tensor), edit.at.axis, units * edit.at.inner
    if values is not None:
        return build.constant("slices", np.ascontiguousarray(values.take(edit.at.places(units, kept), axis)))
    places: gs.Tensor = build.constant(
        "places", HeadAxis(axis, edit.at.inner, block).places(units, kept).astype(np.int64)
    )
    if edit.spans_rows(units):  # [rows * units * inner], with as many rows as there are
        zero, one, width = (build.constant("number", np.array(number, np.int64)) for number in (0, 1, block))
        size = build.node(
            "Gather", "size", [build.node("Shape", "size", [tensor]), build.constant("axis", np.array(axis))]
        )
        first = build.node(
            "Mul", "first", [build.node("Range", "row", [zero, build.node("Div", "rows", [size, width]), one]), width]
        )
        column = build.node("Reshape", "first", [first, build.constant("column", np.array([-1, 1], np.int64))])
        flat = build.constant("flat", np.array([-1], np.int64))
        places = build.node("Reshape", "places", [build.node("Add", "places", [column, places]), flat])
    return build.node("Gather", "slices", [tensor, places], axis=axis)
