"""Which slices of an attention's tensors belong to which head: one head's inputs change, and what moves is its own.

Heads do not see each other, whatever turns queries and keys (rotary positions, norms), whatever is added to their
scores (relative positions, windows, a causal mask) and however many queries share a key. So heads can be cut out of an
attention whose formula is not known: a head is a slice of each tensor on the way, and of what meets those tensors.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.copies import copied
from onnxslim_bert.graph.edit import Builder, sort_nodes
from onnxslim_bert.graph.probe import (
    inputs_of,
    nodes_between,
    opsets_of,
    run_all,
    subgraph_nodes,
)
from onnxslim_bert.model.attention_form import FUSED_ATTENTION
from onnxslim_bert.model.head_cuts import HEAD_COUNTS, Edit, HeadAxis, HeadSlices
from onnxslim_bert.model.region import ALONE, Region, is_close
from onnxslim_bert.model.token_masks import probe_size

SHAPES = {"Reshape": 1, "Expand": 1}  # the input that holds the shape of the output
FIRST_INPUT_ONLY = frozenset(  # the other inputs say where, or how much
    ["Slice", "Split", "Squeeze", "Unsqueeze", "Gather", "Tile", "Pad", "Clip", "CumSum", "ReduceSum", "TopK", "Trilu"]
)


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
        return f"the attention also reads {region.stranger!r}"
    key = f"{units} {region.key(units)}"
    if key not in _KNOWN:
        if len(_KNOWN) >= _KNOWN_MOST:
            _KNOWN.clear()
        try:
            _KNOWN[key] = _tried(region, units)
        except ValueError as error:
            _KNOWN[key] = f"{ALONE} ({error})"
    return _KNOWN[key]


def _tried(region: Region, units: int) -> HeadSlices | str:
    """What to change; an operand whose size follows that of the heads by itself is left alone."""
    found = _read(region, units)
    if isinstance(found, str):
        return found
    following = _following(region)
    needed = HeadSlices(units, ())
    try:
        for edit in found.edits:
            operand = None if isinstance(edit.place, str) else region.nodes[edit.node].inputs[edit.place]
            if operand is None or id(operand) not in following or not _follows(region, needed, edit, operand):
                needed = replace(needed, edits=(*needed.edits, edit))
        if _holds(region, needed):
            return needed
    except ValueError:  # sizes that follow in another way, as (rows * heads) // heads does
        pass
    return found if _holds(region, found) else "with fewer heads it gives something else"


def _following(region: Region) -> set[int]:
    """The ids of the tensors that depend on the shape of what depends on query, key or value."""
    moving, following = region.moving(), set[int]()
    for node in region.nodes:
        reads_shape = node.op in ("Shape", "Size") and any(id(tensor) in moving for tensor in node.inputs)
        if reads_shape or any(id(tensor) in following for tensor in node.inputs):
            following |= {id(tensor) for tensor in node.outputs if id(tensor) not in moving}
    return following


def _follows(region: Region, before: HeadSlices, edit: Edit, operand: gs.Tensor) -> bool:
    """Whether `operand` has fewer heads of itself once the edits `before` are made."""
    copy = _Narrowed(region, before, operand)
    values = copy.run(region.given(region.feeds(*probe_size(region.graph))))
    size = int(values[edit.at.axis]) if edit.is_shape else values.shape[edit.at.axis]
    return size != edit.at.size


def _holds(region: Region, found: HeadSlices) -> bool:
    """Whether a copy that `found` narrows to every other unit gives what the region gives for those."""
    copy = _Narrowed(region, found, region.target)
    for given in region.probes():
        whole = region.run_targets(given, [region.target])[0]
        if not is_close(copy.run(given), _units_of(whole, found.units, copy.kept)):
            return False
    return True


class _Narrowed:
    """A copy of a region with every other unit, up to `target`."""

    def __init__(self, region: Region, slices: HeadSlices, target: gs.Tensor) -> None:
        self.region, self.units = region, slices.units
        self.kept = np.arange(self.units)[1::2]
        graph = copied(gs.Graph(nodes=list(region.nodes), opset=region.graph.opset))
        self.target = graph.tensors()[target.name]
        slices.keep(Builder(graph, "kept"), list(graph.nodes), self.kept)
        sort_nodes(graph)
        self.nodes = nodes_between([], self.target)

    def run(self, given: Mapping[str, Array]) -> Array:
        """The value of the target; `given` holds all units."""
        sources, read = ({t.name for t in some} for some in (self.region.sources, inputs_of(self.nodes)))
        fewer = {n: _units_of(x, self.units, self.kept) if n in sources else x for n, x in given.items() if n in read}
        return run_all(self.nodes, fewer, [self.target], opsets_of(self.region.graph))[0]


def _units_of(values: Array, units: int, kept: Array) -> Array:
    """The channels [..., channels] of the units `kept`."""
    return values[..., HeadAxis(-1, values.shape[-1] // units, values.shape[-1]).places(units, kept)]


def _read(region: Region, units: int) -> HeadSlices | str:
    """What holds heads in `region`, by runs in which one unit's query, key and value are others."""
    if any(subgraph_nodes(node) for node in region.nodes):
        return "it has branches"
    moving = region.moving()
    inner = [node for node in region.nodes if any(id(tensor) in moving for tensor in node.outputs)]
    seen = {t.name: t for node in inner for t in [*node.inputs, *node.outputs] if not t.is_empty()}
    written = {id(tensor) for node in region.nodes for tensor in node.outputs}
    targets = [tensor for tensor in seen.values() if id(tensor) in written]
    batch, seq = probe_size(region.graph)
    feeds = region.feeds(batch, seq)

    def values(given: Mapping[str, Array]) -> dict[str, Array]:
        given = region.given(given)
        made = region.run_targets(given, targets)
        known = {tensor.name: np.asarray(tensor.values) for tensor in seen.values() if isinstance(tensor, gs.Constant)}
        return {**given, **known, **{t.name: x for t, x in zip(targets, made, strict=True)}}

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
    shapes = [node for node in region.nodes if node.op == "Shape" and node.inputs[0].name in axes]
    restored = [(numbers[id(node)], axes[node.inputs[0].name]) for node in shapes]
    return HeadSlices(units, tuple(edits), tuple(restored))


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
            found = HeadAxis(axis, inner, size, base.ndim)
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
    """The axis of an input of that shape: of a node that gives the same for all heads, as IsNaN does, or nothing.

    What is empty may be so on another axis: the channels behind those that positions turn, where they turn all.
    """
    for name in (tensor.name for tensor in node.inputs if tensor.name in axes):
        given, axis = values[name].shape, axes[name].axis
        emptied = 0 in shape and len(given) == len(shape) and given[axis] == shape[axis]
        if given == shape or emptied:
            return axes[name]
    return None


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
