"""Fix batch and length, and fold what follows from them."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import redirect
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.dense import embeddings_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.positions import most_tokens
from onnxslim_bert.model.shapes import has_fixed_shape, infer_shapes
from onnxslim_bert.model.simplify import (
    bypass_same_shape,
    fold,
    tidy,
)
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.wording import plural

PICKING = ("Gather", "GatherElements", "GatherND")


@dataclass(frozen=True)
class FixShapes(Pass):
    """Fix the shape of every input to [batch, seq], and replace what depends on shapes alone by constants.

    For providers on phones and DSPs, which take fixed shapes only. Arithmetic on shapes becomes constants; Reshapes
    that change nothing go; the position rows of `seq` tokens, and token types that are no input, become constants that
    are added. Type and shape of every tensor are written into the file. Exact.

    batch: rows.
    seq: tokens in a row, padding included; no more than the model has positions.
    """

    name: ClassVar[str] = "fix-shapes"
    exact: ClassVar[float | None] = 1e-5
    empty_rows: ClassVar[bool] = True
    batch: int = 1
    seq: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.batch, self.seq) < 1:
            raise PassError(f"fix-shapes: batch={self.batch}, seq={self.seq}; both are at least 1")

    @property
    def shape(self) -> tuple[int | None, int | None]:
        return self.batch, self.seq

    def at_length(self, seq: int) -> Self:
        return replace(self, seq=seq)

    def apply(self, model: Model, ctx: Context) -> Change:
        fixed = [self.batch, self.seq]
        for tensor in model.graph.inputs:
            check_input(tensor, fixed)
        check_positions(model, self.seq)
        opened = [tensor for tensor in model.graph.inputs if list(tensor.shape) != fixed]
        for tensor in opened:
            tensor.shape = list(fixed)
        before = len(model.graph.nodes)
        unknown = fold_static(model)
        after = len(model.graph.nodes)
        if not opened and before == after:
            return Change(0, f"inputs are {fixed} already and nothing is left to fold")
        note = f"inputs are {fixed}; {plural(before, 'node')} became {after}"
        if unknown:
            note += f"; unknown stays the shape of {plural(len(unknown), 'tensor')}, of {unknown[0]!r} first"
        return Change(len(opened) + before - after, note)


def check_input(tensor: gs.Tensor, fixed: list[int]) -> None:
    """Raise PassError when the graph input `tensor` cannot have the shape `fixed`."""
    shape = None if tensor.shape is None else list(tensor.shape)
    if shape is None or len(shape) != len(fixed):
        raise PassError(f"fix-shapes: input {tensor.name!r} has shape {shape}; [batch, seq] was needed")
    if any(isinstance(size, int) and size != wanted for size, wanted in zip(shape, fixed, strict=True)):
        raise PassError(
            f"fix-shapes: input {tensor.name!r} has the fixed shape {shape}, not {fixed}; export with dynamic axes"
        )


def check_positions(model: Model, seq: int) -> None:
    """Raise PassError when the model has no position for each of `seq` tokens."""
    most = most_tokens(model)
    if most is not None and seq > most:
        table = embeddings_of(model).position
        raise PassError(
            f"fix-shapes: seq={seq} is too long for the position table {table!r}, which serves {most} tokens"
        )


def fold_static(model: Model) -> list[str]:
    """Infer shapes and fold constants in turn until nothing more folds; return the tensors whose shape is not fixed."""
    while True:
        unknown = infer_shapes(model)
        before = len(model.graph.nodes)
        bypass_same_shape(model.graph)
        fold_uniform(model.graph)
        fold(model)
        tidy(model)
        if len(model.graph.nodes) == before:
            return unknown


def fold_uniform(graph: gs.Graph) -> None:
    """Replace lookups in a table of equal integers by a constant. Example: token types, which are 0 at any position."""
    for node in graph.nodes:
        values = constant(node.inputs[0]) if node.op in PICKING and has_fixed_shape(node.outputs[0]) else None
        if values is not None and values.dtype.kind == "i" and values.size and (values == values.flat[0]).all():
            same = np.full(node.outputs[0].shape, values.flat[0])
            redirect(graph, node.outputs[0], gs.Constant(f"{node.outputs[0].name}/same", same))
