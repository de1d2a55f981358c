"""Operators that few providers take, by those that all take."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import constant, float_type
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import has_fixed_shape, renew_shapes
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.wording import plural

MOST_COPIES = 32  # of what an Expand repeats; where heads share keys, each key serves so many


@dataclass(frozen=True)
class PlainOperators(Pass):
    """Write Neg as a product with -1, Reciprocal as a division, an Expand along one axis as a Concat of copies. Exact.

    CoreML and NNAPI take none of the first ones, as rotary positions and norms without a mean are exported with them,
    nor an Expand, which repeats the keys that heads share. An Expand needs fixed shapes (`fix-shapes`).
    """

    name: ClassVar[str] = "plain-operators"
    exact: ClassVar[float | None] = 1e-5
    empty_rows: ClassVar[bool] = True

    def apply(self, model: Model, ctx: Context) -> Change:
        build = Builder(model.graph, "")
        written = [_write(build.under(node.name), node) for node in list(model.graph.nodes)]
        if not any(written):
            return Change(0, "the graph has no Neg, no Reciprocal and no Expand along one axis")
        model.changed()
        renew_shapes(model)
        return Change(sum(written), f"{plural(sum(written), 'node')} written as products, divisions or copies")


def _write(build: Builder, node: gs.Node) -> bool:
    source = node.inputs[0] if node.inputs else None
    if source is None or node.domain:
        return False
    if node.op == "Neg" and np.dtype(source.dtype or float_type(source)).kind == "f":
        result = build.node("Mul", "product", [source, build.constant("minus", np.array(-1, float_type(source)))])
    elif node.op == "Reciprocal":
        result = build.node("Div", "inverse", [build.constant("one", np.array(1, float_type(source))), source])
    elif node.op == "Expand" and (copies := _copies(node)) is not None:
        axis, count = copies
        result = build.node("Concat", "copies", [source] * count, axis=axis)
    else:
        return False
    redirect(build.graph, node.outputs[0], result)
    return True


def _copies(node: gs.Node) -> tuple[int, int] | None:
    """The one axis along which an Expand repeats what it reads, and how often; None for any other."""
    target = constant(node.inputs[1])
    if target is None or not has_fixed_shape(node.inputs[0]) or len(target) != len(node.inputs[0].shape):
        return None
    longer = [(axis, int(n)) for axis, n in enumerate(target) if n != 1 != node.inputs[0].shape[axis] or n > 1]
    longer = [(axis, n) for axis, n in longer if node.inputs[0].shape[axis] == 1]
    return longer[0] if len(longer) == 1 and longer[0][1] <= MOST_COPIES else None
