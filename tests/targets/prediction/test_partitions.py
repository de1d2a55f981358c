"""How taken nodes are grouped, on graphs drawn by hand and at random."""

from itertools import chain

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxslim_bert.targets.prediction.partitions import Unit, pieces

GRAPHS = {  # edges; nodes in capitals are taken; groups as they are found
    "a chain": ("A-B B-C", ["ABC"]),
    "nothing is taken": ("a-b b-c", []),
    "a refused node first": ("a-B B-C", ["BC"]),
    "a refused node last": ("A-B B-c", ["AB"]),
    "a refused node between": ("A-b b-C", ["A", "C"]),
    "two parts that no edge joins": ("A-B C-D", ["ACBD"]),
    "a way round the refused node": ("A-b b-D A-C C-D", ["AC", "D"]),
    "a branch before the refused node": ("A-B A-c B-D c-e", ["ABD"]),
    "a refused input waits for nobody": ("a-C B-C C-D", ["BCD"]),
    "every other": ("A-b b-C C-d d-E", ["A", "C", "E"]),
    "read twice": ("A-B A-B B-c c-D A-D", ["AB", "D"]),
}


def drawn(edges: str) -> list[Unit]:
    """One unit for each letter, in alphabetical order, which is execution order here."""
    pairs = [edge.split("-") for edge in edges.split()]
    nodes = {
        name: gs.Node("Sum", name, outputs=[gs.Variable(name)]) for name in sorted({*edges} - {*"- "}, key=str.lower)
    }
    for source, reader in pairs:
        nodes[reader].inputs.append(nodes[source].outputs[0])
    return [Unit(node) for node in nodes.values()]


def is_capital(unit: Unit) -> bool:
    return unit.node.name.isupper()


@pytest.mark.parametrize("name", GRAPHS)
def test_groups_are_those_drawn(name):
    edges, expected = GRAPHS[name]
    found = ["".join(unit.node.name for unit in group) for group in pieces(drawn(edges), is_capital)]
    assert found == expected


@pytest.mark.parametrize("seed", range(20))
def test_no_way_between_two_of_a_group_leaves_it(seed):
    """On random graphs, and every taken node is in exactly one group."""
    rng = np.random.default_rng(seed)
    count = 14
    reads = np.triu(rng.random((count, count)) < 0.25, 1)
    taken = rng.random(count) < 0.6
    nodes = [gs.Node("Sum", str(i), outputs=[gs.Variable(str(i))]) for i in range(count)]
    for i, j in np.argwhere(reads):
        nodes[j].inputs.append(nodes[i].outputs[0])
    groups = [
        [int(u.node.name) for u in g] for g in pieces([Unit(n) for n in nodes], lambda u: taken[int(u.node.name)])
    ]
    assert sorted(chain.from_iterable(groups)) == np.flatnonzero(taken).tolist()
    reaches = np.linalg.matrix_power(np.eye(count, dtype=int) + reads, count) > 0
    for group in groups:
        outside = [i for i in range(count) if i not in group]
        assert not any(reaches[a, o] and reaches[o, b] for o in outside for a in group for b in group)


def test_a_group_around_a_node_counts_as_one():
    """The nodes before and after belong to the unit; edges inside it are none."""
    a, b, c = (gs.Node("Sum", name, outputs=[gs.Variable(name)]) for name in "ABC")
    b.inputs.append(a.outputs[0])
    c.inputs.append(b.outputs[0])
    unit = Unit(b, (a,), (c,))
    assert pieces([unit], lambda unit: True) == [[unit]]
    assert [node.name for node in unit.nodes] == ["A", "B", "C"]
