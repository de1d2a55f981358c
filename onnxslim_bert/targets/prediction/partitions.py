"""Partitions: the pieces of a graph that a provider runs as one, as ONNX Runtime forms them."""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import read_by


@dataclass(frozen=True, eq=False)
class Unit:
    """Nodes that a provider takes together or not at all.

    node: what is computed. before, after: the DequantizeLinear that it reads and the QuantizeLinear that it writes,
    where it computes on integers; else none.
    """

    node: gs.Node
    before: tuple[gs.Node, ...] = ()
    after: tuple[gs.Node, ...] = ()

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """All of them in execution order."""
        return (*self.before, self.node, *self.after)

    @property
    def quantized(self) -> bool:
        """Whether it computes on integers."""
        return bool(self.before)


def pieces(units: Sequence[Unit], is_taken: Callable[[Unit], bool]) -> list[list[Unit]]:
    """The partitions: the units that are taken, in groups that run as one each.

    units: in execution order. No path between two units of a group leads through a unit outside of it; the units of a
    group need not be connected. Example, with b refused: of a -> b -> c, [a] and [c] are groups; of a -> b and c apart,
    [a, c] is one. The groups come from Kahn's topological sort in waves: a wave takes every unit that is ready, and
    leaves refused units that read its group to the next wave
    (https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/providers/partitioning_utils.cc).
    """
    readers, unread = _edges(units)
    ready, later = deque(unit for unit in units if not unread[unit]), deque[Unit]()
    groups: list[list[Unit]] = [[]]
    border = set[Unit]()  # what reads the group
    while ready or later:
        if not ready:
            groups.append([])
            border.clear()
            ready, later = later, ready
            continue
        unit = ready.popleft()
        taken = is_taken(unit)
        if not taken and unit in border:
            later.append(unit)
            continue
        if taken:
            groups[-1].append(unit)
            border.update(readers[unit])
        for reader in readers[unit]:
            unread[reader] -= 1
            if not unread[reader]:
                ready.append(reader)
    return [group for group in groups if group]


def _edges(units: Sequence[Unit]) -> tuple[dict[Unit, list[Unit]], dict[Unit, int]]:
    """Who reads each unit, once for every tensor read, and how many tensors of other units each one reads."""
    writer = {id(tensor): unit for unit in units for node in unit.nodes for tensor in node.outputs}
    readers: dict[Unit, list[Unit]] = defaultdict(list)
    unread: dict[Unit, int] = defaultdict(int)
    for unit in units:
        for tensor in (tensor for node in unit.nodes for tensor in read_by(node)):
            source = writer.get(id(tensor))
            if source is not None and source is not unit:
                readers[source].append(unit)
                unread[unit] += 1
    return readers, unread
