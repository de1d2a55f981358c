"""Rules by which providers take or refuse a node, as the classes of ONNX Runtime that are called builders hold them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.targets.prediction.partitions import Unit
from onnxslim_bert.targets.prediction.remedies import BY_OPERATOR, FIX_SHAPES, MASK

FLOAT32 = ("float32",)
EVERY = "base_op_builder.cc"  # what is asked of every operator


@dataclass(frozen=True)
class Refusal:
    """Why a provider does not take a node. fix: the recipe that mends it; None when none is known.

    source: the provider's file that says so, where that is not the operator's own.
    """

    reason: str
    fix: str | None = None
    source: str = ""


Rule = Callable[[Unit], Refusal | None]


@dataclass(frozen=True)
class Builder:
    """Rules of one operator, in the order in which they are asked. source: the file of the provider that has them."""

    source: str
    rules: tuple[Rule, ...]


def first_refusal(unit: Unit, builders: Mapping[str, Builder], fixes: Mapping[str, str]) -> Refusal | None:
    """Why the builder of the unit's operator refuses it; None when it takes it.

    fixes: what mends an operator that has no builder, where that is the provider's own matter.
    """
    op = unit.node.op
    builder = builders.get(op)
    if builder is None:
        return Refusal("no rule is known that takes this operator", fixes.get(op) or BY_OPERATOR.get(op))
    for rule in builder.rules:
        if refusal := rule(unit):
            return replace(refusal, source=refusal.source or builder.source)
    return None


def dtype(tensor: gs.Tensor) -> str:
    """The numpy name of a tensor's type."""
    return "an unknown type" if tensor.dtype is None else np.dtype(tensor.dtype).name


def shape(tensor: gs.Tensor) -> list[int | None]:
    """A tensor's dimensions, None for those that are open; empty too when not even their number is known."""
    return list(tensor.shape or ())


def is_fixed(tensor: gs.Tensor) -> bool:
    """Whether every dimension is known."""
    return tensor.shape is not None and None not in shape(tensor)


def given(node: gs.Node, place: int) -> gs.Tensor | None:
    """The input at `place`, None when the node leaves it out."""
    tensor = node.inputs[place] if place < len(node.inputs) else None
    return None if tensor is None or tensor.is_empty() else tensor


def inputs(node: gs.Node) -> list[gs.Tensor]:
    """The inputs that the node does not leave out."""
    return [tensor for tensor in node.inputs if not tensor.is_empty()]


def values(node: gs.Node, place: int) -> Array | None:
    """The constant at the input `place`; None when it is computed or left out."""
    tensor = given(node, place)
    return None if tensor is None else constant(tensor)


def reads(kinds: Collection[str], *places: int) -> Rule:
    """A rule: the inputs at `places` are of one of these types."""

    def rule(unit: Unit) -> Refusal | None:
        for tensor in (given(unit.node, place) for place in places):
            if tensor is not None and (kind := dtype(tensor)) not in kinds:
                of_mask = kind == "bool" or unit.node.op == "Cast"
                fix = MASK if of_mask else shapes_fix(unit)
                return Refusal(f"reads {kind}, {' or '.join(kinds)} was needed", fix, EVERY)
        return None

    return rule


def ranks(least: int, most: int, *places: int) -> Rule:
    """A rule: the inputs at `places` have from `least` to `most` dimensions."""

    def rule(unit: Unit) -> Refusal | None:
        for tensor in (given(unit.node, place) for place in places):
            if tensor is not None and not least <= len(shape(tensor)) <= most:
                return Refusal(f"reads {len(shape(tensor))} dimensions, {least} to {most} are taken")
        return None

    return rule


def known(*parts: tuple[int, str]) -> Rule:
    """A rule: the inputs at these places, each with its name for the refusal, are constants or left out."""

    def rule(unit: Unit) -> Refusal | None:
        for place, name in parts:
            tensor = given(unit.node, place)
            if tensor is not None and constant(tensor) is None:
                fix = FIX_SHAPES if dtype(tensor) in ("int32", "int64") else None
                return Refusal(f"{name} is computed, a constant was needed", fix)
        return None

    return rule


def fixed(unit: Unit) -> Refusal | None:
    """A rule: no input has an open dimension."""
    if all(map(is_fixed, inputs(unit.node))):
        return None
    return Refusal("reads an open dimension", FIX_SHAPES, EVERY)


def shapes_fix(unit: Unit) -> str | None:
    """The recipe that may mend a refusal of `unit`: fixing shapes, where it may compute a shape; else None.

    It may where a result has fewer than two dimensions or an open one, or where no shape is known.
    """
    sizes = [shape(tensor) for tensor in unit.node.outputs if tensor.shape is not None]
    return FIX_SHAPES if not sizes or any(None in size or len(size) < 2 for size in sizes) else None


def plain_gemm(unit: Unit) -> Refusal | None:
    """A rule for Gemm: it computes A B + C or A Bᵀ + C, unscaled, with C one row of the result."""
    node = unit.node
    if node.attrs.get("transA", 0) or node.attrs.get("alpha", 1.0) != 1 or node.attrs.get("beta", 1.0) != 1:
        return Refusal("transA, alpha or beta is set")
    bias, width = given(node, 2), shape(node.inputs[1])[0 if node.attrs.get("transB", 0) else 1]
    if bias is not None and (not shape(bias) or shape(bias)[-1] != width or set(shape(bias)[:-1]) - {1}):
        return Refusal(f"the bias is {shape(bias)}, one row [{width}] was needed")
    return None
