"""How far apart two tokens must be before a piece of a graph may treat them otherwise.

A sliding window of 64 tokens is not seen in rows of 7. So every number to which positions are compared, by which they
are shifted or divided, is collected by structure; a probe twice as long as the largest of them has seen both sides of
each. Positions that meet anything else (logarithms, products with activations) are not accounted for.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant

ENDLESS = 1 << 16  # numbers from here on stand for no limit at all
COUNTS = frozenset(["Shape", "Size", "Range", "NonZero", "CumSum"])
COMPARES = frozenset(["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
SHIFTS = frozenset(["Add", "Sub", "Sum", "Max", "Min", "Clip", "Where"])
SCALES = frozenset(["Mul", "Div", "Mod"])
LOOKUPS = frozenset(["Gather", "GatherND", "GatherElements"])
MOVES = frozenset(
    [
        *("Cast", "Unsqueeze", "Squeeze", "Reshape", "Expand", "Transpose", "Concat", "Identity", "Tile", "Flatten"),
        *("Neg", "Abs", "Floor", "Ceil", "Round", "Sign", "Slice", "Split", "ConstantOfShape", "Trilu"),
    ]
)
CUTS = frozenset(["Slice", "Pad", "Trilu", "Split"])
VALUES = {  # how many of a node's inputs give values; the others say where
    **dict.fromkeys(("Reshape", "Expand", "Tile", "Slice", "Unsqueeze", "Squeeze", "Split", "Pad"), 1),
    "ConstantOfShape": 0,
}


@dataclass(frozen=True)
class Horizon:
    """How far positions must be apart to see all that a region does with them, in tokens.

    number: the largest that they are compared with or shifted by. table: the longest side of a constant that they look
    up. Both are 0 when positions meet nothing.
    """

    number: int
    table: int

    @property
    def lengths(self) -> list[int]:
        """Lengths of probe rows that see beyond both, longest first; none where positions meet nothing.

        Example: a window of 64 tokens, without a table, gives [131].
        """
        wanted = {max(2 * self.number + 3, self.table) if self.number else self.table, self.table}
        return sorted((length for length in wanted if length), reverse=True)


def horizon(nodes: Sequence[gs.Node], target: gs.Tensor, varies: Callable[[gs.Tensor], bool]) -> Horizon | str:
    """The horizon of `nodes`, on the way to `target`; or, in words, which node takes positions in another way.

    varies: whether a tensor has other values, or another shape, in longer rows.
    """
    values = _giving_values(nodes, target)
    positions: set[int] = set()
    number, table, scale = 0.0, 0.0, 1.0
    for node in (node for node in with_inner(nodes) if id(node) in values):
        numbers = [size for tensor in node.inputs for size in _numbers(tensor)]
        given = node.inputs[: VALUES.get(node.op)]
        reached = node.op in COUNTS or any(id(tensor) in positions for tensor in given)
        if node.op in CUTS or (reached and node.op in SHIFTS | COMPARES | {"Range"}):
            number = max([number, *numbers])
        if node.op == "Slice" or (reached and node.op in LOOKUPS):
            table = max([table, *(size for tensor in node.inputs for size in _sides(tensor))])
        number = max([number, *_windows(node)])
        if not reached or not any(varies(tensor) for tensor in node.outputs):
            continue
        if node.op in SCALES:
            number = max(number, 1.0)
            scale *= max([1.0, *numbers, *(1 / size for size in numbers if size)])
        elif node.op not in COUNTS | SHIFTS | COMPARES | LOOKUPS | MOVES:
            return f"positions reach it through {node.op} at node {node.name!r}"
        looked_up = node.op in LOOKUPS and id(node.inputs[0]) not in positions
        if node.op not in COMPARES and not looked_up:
            positions |= {id(tensor) for tensor in node.outputs}
    return Horizon(int(np.ceil(number * scale)), int(table))


def _giving_values(nodes: Sequence[gs.Node], target: gs.Tensor) -> set[int]:
    """The ids of the nodes of which `target` needs more than a shape."""
    needed, found = {id(target)}, set[int]()
    for node in reversed(nodes):
        if any(id(tensor) in needed for tensor in node.outputs):
            inner = list(with_inner([node]))
            found |= {id(other) for other in inner}
            needed |= {id(t) for other in inner for t in other.inputs if other.op not in ("Shape", "Size")}
    return found


def _windows(node: gs.Node) -> Iterable[float]:
    """Numbers of tokens among the attributes of `node`."""
    window = node.attrs.get("local_window_size", 0)
    kernel = node.attrs.get("kernel_shape", ())
    return [float(size) for size in (window, *kernel) if size > 0]


def _numbers(tensor: gs.Tensor) -> list[float]:
    values = constant(tensor)
    if values is None or values.dtype.kind not in "iuf":
        return []
    sizes = np.unique(np.abs(values.astype(np.float64)))
    return [float(size) for size in sizes if size < ENDLESS]


def _sides(tensor: gs.Tensor) -> list[float]:
    """The sides of a constant with two axes or more: a table of positions, a stored triangle."""
    values = constant(tensor)
    return [] if values is None or values.ndim < 2 else [float(size) for size in values.shape]


def with_inner(nodes: Iterable[gs.Node]) -> Iterable[gs.Node]:
    """These nodes, each behind those of its subgraphs."""
    for node in nodes:
        for graph in node.attrs.values():
            if isinstance(graph, gs.Graph):
                yield from with_inner(graph.nodes)
        yield node
