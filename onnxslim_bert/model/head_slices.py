"""Which slices of an attention's tensors belong to which head: one head's inputs change, and what moves is its own.

Heads do not see each other, whatever turns queries and keys (rotary positions, norms), whatever is added to their
scores (relative positions, windows, a causal mask) and however many queries share a key. So heads can be cut out of an
attention whose formula is not known: a head is a slice of each tensor on the way, and of what meets those tensors.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder, sort_nodes
from onnxslim_bert.graph.probe import constant, opsets_of, producer, run_all, subgraph_nodes
from onnxslim_bert.model.attention_form import FUSED_ATTENTION, Region, is_close
from onnxslim_bert.model.token_masks import has_fixed_length, probe_size

HEAD_COUNTS = ("num_heads", "q_num_heads", "kv_num_heads")
SHAPES = {"Reshape": 1, "Expand": 1}  # the input that holds the shape of the output
FIRST_INPUT_ONLY = frozenset(  # the other inputs say where, or how much
    ["Slice", "Split", "Squeeze", "Unsqueeze", "Gather", "Tile", "Pad", "Clip", "CumSum", "ReduceSum", "TopK", "Trilu"]
)
FURTHER = 12  # tokens by which a second probe is longer


@dataclass(frozen=True)
class HeadAxis:
    """The axis that holds heads: place p of it belongs to unit (p // inner) % units. size: of the whole axis."""

    axis: int
    inner: int
    size: int

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
    """What must change in a region so that it computes fewer of its `units` (heads, or groups that share a key)."""

    units: int
    edits: tuple[Edit, ...]

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


_KNOWN: dict[str, HeadSlices | str] = {}
_KNOWN_MOST = 512


def head_slices(region: Region, units: int) -> HeadSlices | str:
    """What to change in `region` for fewer heads; or, in words, why heads cannot be told apart there.

    The change is tried on a copy: what it gives for every other unit must be what the region gives for those. Equal
    regions, as layers have them, are tried once.
    """
    if units == 1:
        return HeadSlices(1, ())
    if region.stranger is not None:
        return f"it also reads {region.stranger!r}"
    key = f"{units} {region.key(units)}"
    if key not in _KNOWN:
        if len(_KNOWN) >= _KNOWN_MOST:
            _KNOWN.clear()
        try:
            _KNOWN[key] = _tried(region, units)
        except ValueError as error:
            _KNOWN[key] = f"it does not run by itself ({str(error)[:160]})"
    return _KNOWN[key]


def _tried(region: Region, units: int) -> HeadSlices | str:
    found = _read(region, units)
    if isinstance(found, str):
        return found
    kept = np.arange(units)[1::2]
    copied = gs.Graph(nodes=list(region.nodes), opset=region.graph.opset).copy()
    target = copied.tensors()[region.target.name]
    found.keep(Builder(copied, "kept"), list(copied.nodes), kept)
    sort_nodes(copied)
    batch, seq = probe_size(region.graph)
    for length in [seq] if has_fixed_length(region.graph) else [seq, seq + FURTHER]:
        holes = (np.random.default_rng(1).random((batch, length)) < 0.6).astype(np.int64)
        holes[:, -1] = 1
        for hiding in (None, holes):
            feeds = region.given(region.feeds(batch, length), None, hiding)
            fewer = dict(feeds)
            for tensor in region.sources:
                fewer[tensor.name] = _units_of(feeds[tensor.name], units, kept)
            whole, part = (
                run_all(nodes, {n: v for n, v in given.items() if n in read}, [end], opsets_of(region.graph))[0]
                for nodes, given, end in ((region.nodes, feeds, region.target), (copied.nodes, fewer, target))
                for read in [{tensor.name for tensor in region.read}]
            )
            if not is_close(part, _units_of(whole, units, kept)):
                return "with fewer heads it gives something else"
    return found


def _units_of(values: Array, units: int, kept: Array) -> Array:
    """The channels [..., channels] of the units `kept`."""
    return values[..., HeadAxis(-1, values.shape[-1] // units, values.shape[-1]).places(units, kept)]


def _read(region: Region, units: int) -> HeadSlices | str:
    """What holds heads in `region`, by runs in which one unit's query, key and value are others."""
    if any(subgraph_nodes(node) for node in region.nodes):
        return "it has branches"
    moving = _moving(region)
    inner = [node for node in region.nodes if any(id(tensor) in moving for tensor in node.outputs)]
    seen = {t.name: t for node in inner for t in [*node.inputs, *node.outputs] if not t.is_empty()}
    written = {id(tensor) for node in region.nodes for tensor in node.outputs}
    targets = [tensor for tensor in seen.values() if id(tensor) in written]
    batch, seq = probe_size(region.graph)
    feeds = region.feeds(batch, seq)

    def values(given: Mapping[str, Array]) -> dict[str, Array]:
        made = region.run_targets(given, targets)
        known = {tensor.name: np.asarray(tensor.values) for tensor in seen.values() if isinstance(tensor, gs.Constant)}
        return {**region.given(given), **known, **{t.name: x for t, x in zip(targets, made, strict=True)}}

    base = values(feeds)
    others = {unit: values(_changed(region, feeds, units, unit)) for unit in sorted({0, units - 1})}
    axes: dict[str, HeadAxis] = {}
    for node in inner:
        for tensor in [*node.inputs, *node.outputs]:
            if id(tensor) in moving and tensor.name not in axes:
                axis = _axis(base[tensor.name], {u: x[tensor.name] for u, x in others.items()}, units)
                axis = axis or _like_inputs(node, base, axes, base[tensor.name].shape)
                if axis is None:
                    return f"heads meet at node {node.name!r} ({node.op})"
                axes[tensor.name] = axis
    numbers = {id(node): i for i, node in enumerate(region.nodes)}
    edits = [replace(edit, node=numbers[id(node)]) for node in inner for edit in _edits(node, moving, base, axes)]
    return HeadSlices(units, tuple(edits))


def _moving(region: Region) -> set[int]:
    """The ids of the tensors whose values depend on query, key or value; shapes alone do not count."""
    moving = {id(tensor) for tensor in region.sources}
    for node in region.nodes:
        if node.op not in ("Shape", "Size") and any(id(tensor) in moving for tensor in node.inputs):
            moving |= {id(tensor) for tensor in node.outputs}
    return moving


def _changed(region: Region, feeds: Mapping[str, Array], units: int, unit: int) -> dict[str, Array]:
    """`feeds` with other numbers in the channels of one unit."""
    rng, found = np.random.default_rng(2 + unit), dict(feeds)
    for tensor in region.sources:
        old = feeds[tensor.name]
        width = old.shape[-1] // units
        new = old.copy()
        new[..., unit * width : (unit + 1) * width] = rng.standard_normal((*old.shape[:-1], width))
        found[tensor.name] = new
    return found


def _axis(base: Array, others: Mapping[int, Array], units: int) -> HeadAxis | None:
    """The axis along which changing a unit moves that unit's places and no others; None where nothing moves so."""
    for axis, size in enumerate(base.shape):
        for inner in (n for n in range(1, size // units + 1) if size % (units * n) == 0):
            found = HeadAxis(axis, inner, size)
            if all(_moves(base, other, found, units, unit) for unit, other in others.items()):
                return found
    return None


def _moves(base: Array, other: Array, found: HeadAxis, units: int, unit: int) -> bool:
    same = (base == other) | ((base != base) & (other != other))
    moved = ~same.all(axis=tuple(axis for axis in range(base.ndim) if axis != found.axis))
    return bool(np.flatnonzero(moved).tolist() == found.places(units, np.array([unit])).tolist())


def _like_inputs(
    node: gs.Node, values: Mapping[str, Array], axes: Mapping[str, HeadAxis], shape: tuple[int, ...]
) -> HeadAxis | None:
    """The axis of an input of that shape: of a node that gives the same for all heads, as IsNaN does."""
    return next((axes[t.name] for t in node.inputs if t.name in axes and values[t.name].shape == shape), None)


def _edits(
    node: gs.Node, moving: set[int], values: Mapping[str, Array], axes: Mapping[str, HeadAxis]
) -> Iterator[Edit]:
    """What in `node` holds heads, its number in the region left open."""
    yield from (Edit(-1, name, HeadAxis(0, 1, 0)) for name in HEAD_COUNTS if name in node.attrs)
    result = node.outputs[0]
    found, rank = axes[result.name], values[result.name].ndim
    for place, tensor in enumerate(node.inputs):
        if tensor.is_empty() or id(tensor) in moving:
            continue
        given = values[tensor.name]
        if SHAPES.get(node.op) == place:
            yield from _shape_edits(node, place, given.reshape(-1), found, rank)
        elif node.op == "Einsum":
            yield from _einsum_edits(node, place, given, found)
        elif node.op in FUSED_ATTENTION:  # what is added to the scores, [batch, heads, query, key]
            if given.ndim == 4 and given.shape[1] > 1:
                yield Edit(-1, place, HeadAxis(1, given.shape[1] * found.inner // found.size, given.shape[1]))
        elif node.op not in FIRST_INPUT_ONLY:
            axis = found.axis - rank + given.ndim
            if axis >= 0 and given.shape[axis] == found.size > 1:
                yield Edit(-1, place, replace(found, axis=axis))


def _shape_edits(node: gs.Node, place: int, shape: Array, found: HeadAxis, rank: int) -> Iterator[Edit]:
    entry = found.axis - rank + len(shape)
    if entry >= 0 and shape[entry] == found.size:
        free = node.op == "Reshape" and not (shape == -1).any()
        yield Edit(-1, place, replace(found, axis=entry), is_shape=True, free=free)


def _einsum_edits(node: gs.Node, place: int, given: Array, found: HeadAxis) -> Iterator[Edit]:
    read, _, written = node.attrs["equation"].replace(" ", "").partition("->")
    letter, letters = written[found.axis : found.axis + 1], read.split(",")[place]
    if letter and "." not in letters and letter in letters:
        yield Edit(-1, place, replace(found, axis=letters.index(letter)))


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
