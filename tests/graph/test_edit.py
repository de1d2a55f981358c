"""Unused nodes go and the others are put in order as graphsurgeon does it, whatever order they come in."""

import random

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from graphs import EVERY, fixture

from onnxslim_bert.graph.edit import drop_unused, sort_nodes


def shuffled(name: str) -> gs.Graph:
    """The fixture's graph with its nodes in another order, and one output fewer where it has several."""
    graph = gs.import_onnx(onnx.load(fixture(name)))
    graph.outputs = graph.outputs[: max(1, len(graph.outputs) - 1)]
    random.Random(3).shuffle(graph.nodes)
    return graph


@pytest.mark.parametrize("name", [*EVERY, "fused-mha"])
def test_the_same_nodes_stay_in_the_same_order(name):
    ours, theirs = shuffled(name), shuffled(name)
    drop_unused(ours)
    sort_nodes(ours)
    theirs.cleanup(remove_unused_graph_inputs=False).toposort()
    assert [node.outputs[0].name for node in ours.nodes] == [node.outputs[0].name for node in theirs.nodes]
    for one, other in zip(ours.nodes, theirs.nodes, strict=True):
        assert [len(tensor.outputs) for tensor in one.inputs] == [len(tensor.outputs) for tensor in other.inputs]


def test_what_branches_read_stays():
    """A node stays when only a graph inside another node reads it; in that graph, too, what nothing reads goes."""
    x, flag = gs.Variable("x", np.float32, [3]), gs.Variable("flag", np.bool_, [])
    outer, result = gs.Variable("outer"), gs.Variable("result", np.float32, [3])

    def branch(name: str, op: str) -> gs.Graph:
        wanted, unused = gs.Variable(f"{name}/wanted", np.float32, [3]), gs.Variable(f"{name}/unused")
        nodes = [gs.Node(op, f"{name}/b", inputs=[outer], outputs=[wanted])]
        return gs.Graph([gs.Node("Abs", f"{name}/a", inputs=[x], outputs=[unused]), *nodes], outputs=[wanted])

    choose = gs.Node(
        "If", "if", {"then_branch": branch("then", "Neg"), "else_branch": branch("else", "Relu")}, [flag], [result]
    )
    nodes = [
        choose,
        gs.Node("Exp", "read", inputs=[x], outputs=[outer]),
        gs.Node("Log", "lost", inputs=[x], outputs=[gs.Variable("lost")]),
    ]
    graph = gs.Graph(nodes, inputs=[x, flag], outputs=[result])
    drop_unused(graph)
    sort_nodes(graph)
    assert [node.name for node in graph.nodes] == ["read", "if"]
    assert [[node.name for node in inner.nodes] for inner in choose.subgraphs()] == [["then/b"], ["else/b"]]
    assert [node.name for node in x.outputs] == ["read"]
    onnx.checker.check_model(gs.export_onnx(graph))
