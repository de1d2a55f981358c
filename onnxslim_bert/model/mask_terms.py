"""What a graph of fixed shapes computes from a token mask alone, told by running it on masks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import is_output
from onnxslim_bert.graph.probe import constant, inputs_of, nodes_between, opsets_of, run
from onnxslim_bert.model.shapes import has_fixed_shape
from onnxslim_bert.model.token_masks import masks

HIDES = -9e3  # what is added to the scores of keys that nobody may see lies below it
TRIED = 12  # masks drawn at random


@dataclass(frozen=True)
class MaskTerm:
    """A tensor that a mask [batch, seq] decides, and what it is where all tokens are real.

    readers: the nodes that read it beside other values. visible: its values then, float, or bool for a condition.
    axis: along which the mask lies; its last one where keys are hidden, its second where tokens are multiplied by it.
    hidden: its value at padding; -inf stands for any that hides keys.
    """

    tensor: gs.Tensor
    mask: gs.Tensor
    readers: tuple[gs.Node, ...]
    visible: Array
    axis: int
    hidden: float


def mask_terms(graph: gs.Graph) -> list[MaskTerm]:
    """The tensors that a mask alone decides and that meet other values, as far as they are understood.

    A term is `visible` for real tokens and one number for padding, whichever other tokens are padding. None where the
    mask has an open shape.
    """
    found: list[MaskTerm] = []
    for mask in masks(graph):
        if has_fixed_shape(mask.tensor) and np.dtype(mask.dtype).kind == "i":
            ends = _ends(graph, mask.tensor)
            found += [term for tensor, readers in ends if (term := _term(graph, mask.tensor, tensor, readers))]
    return found


def _ends(graph: gs.Graph, mask: gs.Tensor) -> Iterator[tuple[gs.Tensor, list[gs.Node]]]:
    """The tensors made of `mask` alone which are read beside others, and the nodes that do."""
    made, front = {id(mask): mask}, [mask]
    while front:
        for node in front.pop().outputs:
            given = [t for t in node.inputs if not t.is_empty() and not isinstance(t, gs.Constant)]
            if len(node.outputs) == 1 and id(node.outputs[0]) not in made and all(id(t) in made for t in given):
                made[id(node.outputs[0])] = node.outputs[0]
                front.append(node.outputs[0])
    for tensor in list(made.values())[1:]:
        readers = [node for node in tensor.outputs if any(id(written) not in made for written in node.outputs)]
        if readers and not is_output(graph, tensor):
            yield tensor, readers


def _term(graph: gs.Graph, mask: gs.Tensor, tensor: gs.Tensor, readers: list[gs.Node]) -> MaskTerm | None:
    nodes, opsets = nodes_between([mask], tensor), opsets_of(graph)
    if any(source is not mask for source in inputs_of(nodes)) or _is_lookup(nodes):
        return None
    try:
        answers = [(held, run(nodes, {mask.name: held}, tensor, opsets)) for held in _holes(mask)]
    except ValueError:
        return None
    visible = answers[0][1]
    if visible.ndim not in (3, 4) or visible.dtype.kind not in "fb" or np.isnan(visible).any():
        return None
    for axis in (visible.ndim - 1, 1):
        if visible.shape[0] == mask.shape[0] and visible.shape[axis] == mask.shape[1]:
            hidden = _hidden(answers, axis)
            if hidden is not None:
                return MaskTerm(tensor, mask, tuple(readers), visible, axis, hidden)
    return None


def _is_lookup(nodes: list[gs.Node]) -> bool:
    """Whether `nodes` are a lookup in a table of two numbers already."""
    tables = [constant(node.inputs[0]) for node in nodes if node.op == "Gather"]
    return {node.op for node in nodes} <= {"Gather", "Unsqueeze", "Add"} and all(x is not None for x in tables)


def _hidden(answers: list[tuple[Array, Array]], axis: int) -> float | None:
    """The value at padding of what is decided token by token along `axis`; None where it is not."""
    visible, numbers = answers[0][1], set[float]()
    for held, values in answers[1:]:
        places = held.reshape(len(held), *(held.shape[1] if i == axis else 1 for i in range(1, values.ndim)))
        real = np.broadcast_to(places.astype(bool), values.shape)
        if not np.array_equal(values[real], visible[real]):
            return None
        padding = values[~real]
        if values.dtype.kind == "f" and padding.size and padding.max() <= HIDES:
            padding = np.array([-np.inf])
        numbers |= set(np.unique(padding).tolist())
    return float(numbers.pop()) if len(numbers) == 1 else None


def _holes(mask: gs.Tensor) -> Iterator[Array]:
    """Masks of the shape of `mask`: of ones, then with holes, one real token in each row at least."""
    rng = np.random.default_rng(0)
    yield np.ones(mask.shape, mask.dtype)
    for number in range(TRIED):
        held = (rng.random(mask.shape) < (0.2, 0.5, 0.9)[number % 3]).astype(mask.dtype)
        held[:, rng.integers(mask.shape[1])] = 1
        yield held
