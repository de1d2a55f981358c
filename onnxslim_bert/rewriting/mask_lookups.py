"""Write what a graph makes of a token mask as lookups in tables of two numbers."""

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import DTypeLike

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.mask_terms import HIDES, MaskTerm, mask_terms
from onnxslim_bert.model.token_masks import COMPARES

STRETCHING = ("Add", "Sum", "Sub", "Mul", "Div")
BEHIND_SCORES = ("Add", "Sum", "Mul", "Div", "Reshape", "Cast")


def emit_bias(build: Builder, mask: gs.Tensor, value: float, dtype: DTypeLike = np.float32, rank: int = 4) -> gs.Tensor:
    """[batch, seq] mask of 0 and 1 -> [batch, 1, 1, seq], or of another rank; one for all layers."""
    if (above := producer(mask)) is not None and above.op in COMPARES:  # what a graph makes of ids may be boolean
        mask = build.once("Cast", f"{mask.name}/real", [mask], to=onnx.TensorProto.INT64)
    name = f"{mask.name}/{value:g}" + ("" if dtype == np.float32 else f"/{np.dtype(dtype)}")
    bias = build.once("Gather", name, [build.constant("mask", bias_table(value, dtype)), mask], axis=0)
    axes = build.constant("axes", np.arange(1, rank - 1))
    return build.once("Unsqueeze", f"{name}/bias{'' if rank == 4 else rank}", [bias, axes])


def bias_table(value: float, dtype: DTypeLike) -> Array:
    """What padding and what real tokens get, [2]."""
    return np.array([max(value, float(np.finfo(dtype).min)), 0], dtype)


def look_up_terms(graph: gs.Graph, value: float) -> int:
    """Look up what masks decide in a graph of fixed shapes (`mask_terms`), wherever that is understood; how many were.

    Numbers that hide keys become `value`; what else depends on keys alone is added as a constant. A condition that
    chooses between values and one number becomes an addition or a product. Terms that hide keys from some tokens only,
    as a window does, are left: such a token may see no key, and what it gets then is another thing in each form.
    """
    build = Builder(graph, "mask")
    return sum(_look_up(graph, build, term, value) for term in mask_terms(graph))


def _look_up(graph: gs.Graph, build: Builder, term: MaskTerm, value: float) -> bool:
    if term.visible.dtype.kind == "b":
        return sum(_without_choice(graph, build, term, choice, value) for choice in list(_choices(term))) > 0
    if not all(_stretches(node, term.tensor) for node in term.readers):
        return False
    visible, hides = term.visible, term.hidden == -np.inf
    if hides and visible.min() > HIDES and term.axis == visible.ndim - 1:
        found = emit_bias(build, term.mask, value, visible.dtype, visible.ndim)
        if visible.any():
            found = build.node("Add", "bias", [found, build.constant("visible", visible)])
    elif not hides and (visible == visible.flat[0]).all():
        found = _table(build, term, np.array([term.hidden, visible.flat[0]], visible.dtype))
    else:
        return False
    for node in term.readers:
        node.inputs = [found if tensor is term.tensor else tensor for tensor in node.inputs]
    _without_guard(graph, found)
    return True


def _stretches(node: gs.Node, tensor: gs.Tensor) -> bool:
    """Whether `node` gives the same with `tensor` as with one that numpy's rules stretch to its shape."""
    others = [t for t in node.inputs if t is not tensor]
    result = node.outputs[0].shape
    return node.op in STRETCHING and result is not None and any(t.shape == result for t in others)


def _without_choice(
    graph: gs.Graph, build: Builder, term: MaskTerm, choice: tuple[gs.Node, gs.Tensor, float], value: float
) -> bool:
    """Write a node that puts a number in place of values at padding as an addition or a product."""
    node, kept, number = choice
    if kept.shape is None or kept.shape != node.outputs[0].shape:
        return False
    if number == 0:
        written = build.node("Mul", "kept", [kept, _table(build, term, np.array([0, 1], np.float32))])
    elif number <= HIDES and term.axis == term.visible.ndim - 1:
        bias = emit_bias(build, term.mask, value, rank=term.visible.ndim)
        written = build.node("Add", "hidden", [kept, bias])
    else:
        return False
    redirect(graph, node.outputs[0], written)
    _without_guard(graph, written)
    return True


def _choices(term: MaskTerm) -> Iterator[tuple[gs.Node, gs.Tensor, float]]:
    """The nodes that put one number in place of values at padding, those values and that number."""
    shown = bool(term.visible.flat[0])
    if (term.visible != shown).any() or term.hidden == shown:
        return
    real, padding = (1, 2) if shown else (2, 1)
    for node in term.readers:
        if node.op != "Where" or node.inputs[0] is not term.tensor:
            continue
        number = constant(node.inputs[padding])
        if number is not None and number.size == 1 and number.dtype == np.float32:
            yield node, node.inputs[real], float(number.reshape(-1)[0])


def _table(build: Builder, term: MaskTerm, numbers: Array) -> gs.Tensor:
    """The mask looked up in `numbers`, with the rank of `term`."""
    looked = build.node("Gather", "real", [build.constant("numbers", numbers), term.mask], axis=0)
    axes = [axis for axis in range(1, term.visible.ndim) if axis != term.axis]
    return build.node("Unsqueeze", "real", [looked, build.constant("axes", np.array(axes, np.int64))])


def _without_guard(graph: gs.Graph, tensor: gs.Tensor) -> None:
    """Take away what puts zeros where the softmax behind `tensor` is not a number: now it always is one."""
    front, seen = [tensor], set[int]()
    while front:
        for node in front.pop().outputs:
            if node.op in BEHIND_SCORES and id(node) not in seen:
                seen.add(id(node))
                front += node.outputs
            elif node.op == "Softmax":
                weights = node.outputs[0]
                for guard in [x.outputs[0] for x in weights.outputs if x.op == "IsNaN"]:
                    for choice in [x for x in guard.outputs if x.op == "Where" and x.inputs[2] is weights]:
                        redirect(graph, choice.outputs[0], weights)
