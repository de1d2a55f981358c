"""A mark is what a pass wrote, not what looks like it; it stays when others write around it and through a file."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxslim_bert.rewriting.marks import SPLIT_OUTLIERS, UNPADDED


def graph_of(*ops: tuple[str, str]) -> tuple[gs.Graph, gs.Tensor]:
    """A chain of operators (operator, name) from one input, and its last tensor."""
    tensor = gs.Variable("x", np.float32, [2, 3])
    nodes = []
    for op, name in ops:
        result = gs.Variable(f"{name}:0")
        nodes.append(
            gs.Node(op, name, inputs=[tensor, gs.Constant(f"{name}/c", np.ones(1, np.float32))], outputs=[result])
        )
        tensor = result
    return gs.Graph(nodes, inputs=nodes[0].inputs[:1], outputs=[tensor], opset=17), tensor


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ([("Clip", "outliers/clipped")], True),
        ([("Clip", "mine/clipped")], False),
        ([("Clip", "outliers-of-mine")], False),
        ([("Mul", "outliers/scaled")], False),
        ([("Clip", "outliers/clipped"), ("Clip", "mine"), ("Mul", "smooth/x")], True),
        ([("Clip", "outliers/clipped"), ("MatMul", "dense")], False),
    ],
)
def test_the_mark_above_a_tensor_is_the_pass_s_own(chain, expected):
    assert SPLIT_OUTLIERS.is_above(graph_of(*chain)[1]) is expected


def test_names_of_a_user_are_no_mark():
    assert not UNPADDED.is_in(graph_of(("Mul", "unpad/mine"))[0])
    assert UNPADDED.is_in(graph_of(("NonZero", "unpad/tokens"))[0])


def test_what_is_written_is_read():
    graph, tensor = graph_of(("Mul", "a"))
    assert UNPADDED.is_on(graph.nodes[-1]) is False
    UNPADDED.builder(graph).node("NonZero", "tokens", [tensor])
    assert UNPADDED.is_in(graph)
