"""Which axes of what a node reads and writes run along the same channels, so that they are cut together.

A channel of a tensor may go when every node that reads or writes it treats channels one by one, and the same channel
goes from what stands beside it. Axes are counted from the end: -1 is the last one.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant, producer

Shapes = Mapping[int, tuple[int, ...]]
"""The shape of each tensor in one run, by `id`; empty tensors are left out."""


class Slot(NamedTuple):
    """One axis of one tensor of a node. position: of the tensor among the inputs, or among the outputs (`written`)."""

    position: int
    axis: int
    written: bool = False


Group = list[Slot]

ELEMENTWISE = frozenset(
    [
        *("Add", "Sum", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Abs", "Reciprocal", "Exp", "Max", "Min", "Mean"),
        *("Gelu", "Relu", "Tanh", "Erf", "Sigmoid", "Elu", "Selu", "LeakyRelu", "Softplus", "HardSigmoid", "HardSwish"),
        *("Identity", "Cast", "Dropout", "Clip", "Where", "Not", "And", "Or", "IsNaN", "IsInf", "Equal", "Greater"),
        *("GreaterOrEqual", "Less", "LessOrEqual", "Expand", "FastGelu", "QuickGelu", "BiasGelu", "BiasAdd"),
    ]
)
NORMS = frozenset(["LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"])
SKIP_NORMS = frozenset(["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
OVER_CHANNELS = frozenset(["ReduceMean", "ReduceL2"])  # norms: of fewer channels they are those of a narrower encoder
PICKS = frozenset(["GatherND", "ScatterND"])


def axis_groups(node: gs.Node, shapes: Shapes) -> list[Group]:
    """The groups of axes of `node` along which channels are the same; an axis in no group cannot be cut.

    Example: of x [2, 5, 12] @ w [12, 20] they are (x -1, w -2), (w -1, result -1), (x -2, result -2).
    """
    if node.op in ELEMENTWISE:
        return _elementwise(node, shapes)
    if node.op.startswith("Reduce"):
        return _reduce(node, shapes)
    rule = _RULES.get(node.op)
    return rule(node, shapes) if rule is not None else []


def _rank(tensor: gs.Tensor, shapes: Shapes) -> int:
    return len(shapes[id(tensor)])


def _present(node: gs.Node, shapes: Shapes) -> list[tuple[Slot, gs.Tensor]]:
    """Every tensor of the node with a shape, as a slot of its last axis."""
    read = [(Slot(i, -1), t) for i, t in enumerate(node.inputs)]
    written = [(Slot(i, -1, written=True), t) for i, t in enumerate(node.outputs)]
    return [(slot, t) for slot, t in (*read, *written) if id(t) in shapes]


def _aligned(node: gs.Node, shapes: Shapes, *, without: tuple[int, ...] = ()) -> list[Group]:
    """Axes that are broadcast against each other; `without` these. An axis of one element goes with none."""
    present = _present(node, shapes)
    most = max((len(shapes[id(t)]) for _, t in present), default=0)
    return [
        [slot._replace(axis=k) for slot, t in present if _rank(t, shapes) >= -k and shapes[id(t)][k] > 1]
        for k in range(-most, 0)
        if k not in without
    ]


def _elementwise(node: gs.Node, shapes: Shapes) -> list[Group]:
    if node.op != "Expand":
        return _aligned(node, shapes)
    return [[slot for slot in group if slot.written or slot.position == 0] for group in _aligned(node, shapes)]


def _norm(node: gs.Node, shapes: Shapes) -> list[Group]:
    source, result = Slot(0, -1), Slot(0, -1, written=True)
    rank = _rank(node.inputs[0], shapes)
    others = [[source._replace(axis=k), result._replace(axis=k)] for k in range(-rank, -1)]
    if node.attrs.get("axis", -1) not in (-1, rank - 1):
        return []
    return [[source, result, *(Slot(i, -1) for i, t in enumerate(node.inputs) if i and id(t) in shapes)], *others]


def _skip_norm(node: gs.Node, shapes: Shapes) -> list[Group]:
    full = [slot for slot, t in _present(node, shapes) if not (slot.written and slot.position in (1, 2))]
    beside = [slot for slot in full if slot.written or slot.position < 2]
    rank = _rank(node.inputs[0], shapes)
    return [full, *([slot._replace(axis=k) for slot in beside] for k in range(-rank, -1))]


def _embed_norm(node: gs.Node, shapes: Shapes) -> list[Group]:
    slots = [slot for slot, _ in _present(node, shapes)]
    return [[s for s in slots if (s.position in (0, 2) if s.written else 2 <= s.position <= 6)]]


def _matmul(node: gs.Node, shapes: Shapes) -> list[Group]:
    left, right = node.inputs[:2]
    if min(_rank(left, shapes), _rank(right, shapes)) < 2:
        return []
    columns, rows = [Slot(1, -1), Slot(0, -1, written=True)], [Slot(0, -2), Slot(0, -2, written=True)]
    inner = [[Slot(0, -1), Slot(1, -2)]] if any(map(_is_matrix, (left, right))) else []
    return [columns, rows, *inner]


def _is_matrix(tensor: gs.Tensor) -> bool:
    """Whether `tensor` is a constant, or a constant turned over: the word table as a decoder reads it."""
    above = producer(tensor)
    turned = above is not None and above.op == "Transpose" and constant(above.inputs[0]) is not None
    return turned or constant(tensor) is not None


def _gemm(node: gs.Node, shapes: Shapes) -> list[Group]:
    if node.attrs.get("transA", 0) or not _is_matrix(node.inputs[1]):
        return []
    outer, inner = (-2, -1) if node.attrs.get("transB", 0) else (-1, -2)
    bias = [Slot(2, -1)] if len(node.inputs) > 2 and shapes.get(id(node.inputs[2]), (1,))[-1] > 1 else []
    columns = [Slot(1, outer), Slot(0, -1, written=True), *bias]
    return [columns, [Slot(0, -1), Slot(1, inner)], [Slot(0, -2), Slot(0, -2, written=True)]]


def _kept_axes(node: gs.Node, shapes: Shapes, axis: int, written: int) -> list[Group]:
    """Of a node that works along one axis of its first input: the axes behind it, which stay as they are."""
    rank = _rank(node.inputs[0], shapes)
    behind = rank - 1 - (axis % rank)
    return [[Slot(0, k), *(Slot(i, k, written=True) for i in range(written))] for k in range(-behind, 0)]


def _gather(node: gs.Node, shapes: Shapes) -> list[Group]:
    return _kept_axes(node, shapes, node.attrs.get("axis", 0), 1)


def _compress(node: gs.Node, shapes: Shapes) -> list[Group]:
    return _kept_axes(node, shapes, node.attrs["axis"], 1) if "axis" in node.attrs else []


def _picks(node: gs.Node, shapes: Shapes) -> list[Group]:
    picked = shapes[id(node.inputs[1])][-1] + node.attrs.get("batch_dims", 0)
    left = _rank(node.inputs[0], shapes) - picked
    beside = [Slot(2, -1)] if node.op == "ScatterND" else []
    slots = [Slot(0, -1), *beside, Slot(0, -1, written=True)]
    return [[slot._replace(axis=k) for slot in slots] for k in range(-left, 0)]


def _along(node: gs.Node, shapes: Shapes) -> list[Group]:
    """Concat, Split, CumSum, GatherElements: all axes but one."""
    rank = _rank(node.inputs[0], shapes)
    axis = node.attrs.get("axis", 0)
    if node.op == "CumSum":
        values = constant(node.inputs[1])
        if values is None:
            return []
        axis = int(values.reshape(()))
    groups = _aligned(node, shapes, without=(axis % rank - rank,))
    takes_sizes = node.op in ("Split", "CumSum")
    return [[s for s in group if s.written or not (takes_sizes and s.position == 1)] for group in groups]


def _slice(node: gs.Node, shapes: Shapes) -> list[Group]:
    rank = _rank(node.inputs[0], shapes)
    bounds = [None if id(t) not in shapes else constant(t) for t in node.inputs[1:]]
    if len(bounds) < 3 or bounds[2] is None:
        return []
    axes = [int(axis) % rank - rank for axis in bounds[2]]
    starts, ends, steps = bounds[0], bounds[1], bounds[3] if len(bounds) > 3 else None
    sizes = shapes[id(node.inputs[0])]
    whole = [
        axis
        for i, axis in enumerate(axes)
        if starts is not None and ends is not None and (starts[i], steps is None or steps[i]) == (0, 1)
        if ends[i] >= sizes[axis]
    ]
    stay = [k for k in range(-rank, 0) if k not in axes or k in whole]
    return [[Slot(0, k), Slot(0, k, written=True)] for k in stay]


def _views(node: gs.Node, shapes: Shapes) -> list[Group]:
    """Squeeze and Unsqueeze: axes of one element come or go, the others keep their order."""
    source, result = shapes[id(node.inputs[0])], shapes[id(node.outputs[0])]
    longer = max(source, result, key=len)
    given = node.attrs.get("axes")
    if given is None and len(node.inputs) > 1:
        given = constant(node.inputs[1])
    if given is None:
        return []
    gone = {int(axis) % len(longer) for axis in given}
    left = [i - len(longer) for i in range(len(longer)) if i not in gone]
    short = range(-len(left), 0)
    pairs = zip(left, short, strict=True) if longer is source else zip(short, left, strict=True)
    return [[Slot(0, one), Slot(0, other, written=True)] for one, other in pairs]


def _reshape(node: gs.Node, shapes: Shapes) -> list[Group]:
    source, result = shapes[id(node.inputs[0])], shapes[id(node.outputs[0])]
    same = source[-1:] == result[-1:] != ()
    return [[Slot(0, -1), Slot(0, -1, written=True)]] if same else []


def _transpose(node: gs.Node, shapes: Shapes) -> list[Group]:
    rank = _rank(node.inputs[0], shapes)
    order = node.attrs.get("perm", list(range(rank))[::-1])
    return [[Slot(0, k - rank), Slot(0, i - rank, written=True)] for i, k in enumerate(order)]


def _reduce(node: gs.Node, shapes: Shapes) -> list[Group]:
    rank = _rank(node.inputs[0], shapes)
    given = node.attrs.get("axes")
    if given is None and len(node.inputs) > 1:
        given = constant(node.inputs[1])
    if given is None:
        return []
    gone = {int(axis) % rank for axis in given}
    kept = [i for i in range(rank) if i not in gone]
    keeps = bool(node.attrs.get("keepdims", 1))
    places = [i - rank for i in kept] if keeps else range(-len(kept), 0)
    groups = [[Slot(0, i - rank), Slot(0, k, written=True)] for i, k in zip(kept, places, strict=True)]
    if node.op in OVER_CHANNELS and keeps and gone == {rank - 1}:
        groups.append([Slot(0, -1)])
    return groups


def _shape(node: gs.Node, shapes: Shapes) -> list[Group]:
    return [[Slot(0, k)] for k in range(-_rank(node.inputs[0], shapes), 0)]


def _filled(node: gs.Node, shapes: Shapes) -> list[Group]:
    return [[Slot(0, -1, written=True)]]


_RULES: dict[str, Callable[[gs.Node, Shapes], list[Group]]] = {
    **dict.fromkeys(NORMS, _norm),
    **dict.fromkeys(SKIP_NORMS, _skip_norm),
    **dict.fromkeys(PICKS, _picks),
    **dict.fromkeys(("Concat", "Split", "CumSum", "GatherElements"), _along),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _views),
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    "EmbedLayerNormalization": _embed_norm,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Gather": _gather,
    "Compress": _compress,
    "Slice": _slice,
    "Transpose": _transpose,
    "LpNormalization": _elementwise,
    "Shape": _shape,
    "ConstantOfShape": _filled,
}
