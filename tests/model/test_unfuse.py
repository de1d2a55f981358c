"""What `unfuse` takes apart: fused attention whose constants are as specified, and no other."""

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import fixture

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.unfuse import unfuse

Damage = Callable[[gs.Node], object]


def shaped(position: int, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Give the constant that a node reads at `position` another shape."""

    def damage(node: gs.Node) -> None:
        node.inputs[position] = gs.Constant(f"{node.name}/changed", change(node.inputs[position].values))

    return damage


def computed(position: int) -> Damage:
    """Let a node read, at `position`, what is given at run time."""

    def damage(node: gs.Node) -> None:
        node.inputs[position] = gs.Variable(f"{node.name}/given", np.float32, node.inputs[position].shape)

    return damage


def sized(*sizes: int) -> Damage:
    """State the widths of query, key and value."""
    return lambda node: node.attrs.update(qkv_hidden_sizes=list(sizes))


CONSTANTS = {"Attention": (1, 2), "MultiHeadAttention": (3,)}  # places of matrices and biases of all three roles
CASES: dict[str, tuple[str, str, Damage]] = {
    "a matrix of one axis": ("fused-attention", "Attention", shaped(1, np.ravel)),
    "a matrix of no axis": ("fused-attention", "Attention", shaped(1, lambda values: values[0, 0, ...])),
    "a matrix of three axes": ("fused-attention", "Attention", shaped(1, lambda values: values[None])),
    "columns that three do not divide": ("fused-attention", "Attention", shaped(1, lambda values: values[:, :-1])),
    "a bias that is shorter": ("fused-attention", "Attention", shaped(2, lambda values: values[:-3])),
    "a bias of two axes": ("fused-attention", "Attention", shaped(2, lambda values: values[None])),
    "a bias that is computed": ("fused-attention", "Attention", computed(2)),
    "two widths": ("fused-attention", "Attention", sized(16, 16)),
    "widths of other columns": ("fused-attention", "Attention", sized(1, 1, 1)),
    "a negative width": ("fused-attention", "Attention", sized(-16, 64, 0)),
    "a joint bias of two axes": ("fused-mha", "MultiHeadAttention", shaped(3, lambda values: values[None])),
    "a joint bias of no axis": ("fused-mha", "MultiHeadAttention", shaped(3, lambda values: values[0, ...])),
    "a joint bias that is computed": ("fused-mha", "MultiHeadAttention", computed(3)),
}


@pytest.mark.parametrize(("name", "op", "damage"), CASES.values(), ids=CASES)
def test_attention_of_other_shapes_stays(name: str, op: str, damage: Damage) -> None:
    """Each block is as the file has it: what it computes, or that it computes nothing, is ONNX Runtime's to say."""
    graph = Model.load(fixture(name)).graph
    blocks = [node for node in graph.nodes if node.op == op]
    assert blocks
    for node in blocks:
        damage(node)
    given = read_by(blocks)
    unfuse(graph)
    assert {id(node) for node in blocks} <= {id(node) for node in graph.nodes}
    assert read_by(blocks) == given


@pytest.mark.parametrize(("name", "op"), [("fused-attention", "Attention"), ("fused-mha", "MultiHeadAttention")])
def test_attention_as_specified_is_taken_apart(name: str, op: str) -> None:
    graph = Model.load(fixture(name)).graph
    blocks = [node for node in graph.nodes if node.op == op]
    given = read_by(blocks)
    unfuse(graph)
    assert all(now != was for now, was in zip(read_by(blocks), given, strict=True))


def read_by(blocks: list[gs.Node]) -> list[list[int]]:
    """Which tensors each block reads as constants, where it is still there."""
    return [[id(node.inputs[place]) for place in CONSTANTS[node.op] if node.inputs] for node in blocks]
