"""Write the graph for an older version of the ONNX operator set (opset)."""

from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.opsets import declare_opset
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass

NO_AXES = "noop_with_empty_axes"  # says nothing where there are axes
AXES_INPUT = 18  # from here on reductions read their axes as an input


@dataclass(frozen=True)
class LowerOpset(Pass):
    """Declare an older opset for the graph, when every node can be written in it; else the pass is refused. Exact.

    A node can when its operator exists at `opset` with the node's attributes and number of inputs, by ONNX's schemas
    (onnx.defs). The axes of reductions, an input from opset 18 on, become an attribute again. ONNX's checker reads the
    result.

    opset: the one to declare. 16 is the last without LayerNormalization: in such a file ONNX Runtime cannot fuse norms
        again before it asks a provider which nodes it takes.
    """

    name: ClassVar[str] = "lower-opset"
    exact: ClassVar[float | None] = 1e-5
    empty_rows: ClassVar[bool] = True
    opset: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.opset <= onnx.defs.onnx_opset_version():
            raise PassError(f"lower-opset: opset={self.opset} is not one of 1 to {onnx.defs.onnx_opset_version()}")

    def apply(self, model: Model, ctx: Context) -> Change:
        before = model.graph.opset
        if before <= self.opset:
            return Change(0, f"the opset is {before} already")
        standard = [node for node in model.graph.nodes if not node.domain]
        for node in standard:
            if reason := why_not(node, self.opset):
                raise PassError(f"lower-opset: node {node.name!r} ({node.op}) {reason} opset {self.opset}")
        for node in standard:
            _lower_axes(node, self.opset)
        declare_opset(model.graph, self.opset)
        model.changed()
        return Change(1, f"opset {before} became {self.opset}")


def why_not(node: gs.Node, opset: int) -> str:
    """Why `node` cannot be written at `opset`, as words that "opset 16" completes; empty when it can.

    Example: "is not in", for LayerNormalization at opset 16.
    """
    try:
        schema = onnx.defs.get_schema(node.op, opset)
    except onnx.defs.SchemaError:
        return "is not in"
    moved = _has_axes_input(node, opset)
    unknown = [name for name in node.attrs if name not in schema.attributes and not (moved and name == NO_AXES)]
    if unknown:
        return f"has the attribute {unknown[0]!r}, unknown at"
    if moved and constant(node.inputs[1]) is None:
        return "computes the axes that are fixed at"
    if len(node.inputs) - moved > schema.max_input:
        return f"has {len(node.inputs)} inputs, more than at"
    return ""


def _has_axes_input(node: gs.Node, opset: int) -> bool:
    return opset < AXES_INPUT and node.op.startswith("Reduce") and node.op != "ReduceSum" and len(node.inputs) > 1


def _lower_axes(node: gs.Node, opset: int) -> None:
    if _has_axes_input(node, opset) and (axes := constant(node.inputs[1])) is not None:
        node.attrs["axes"] = axes.tolist()
        node.attrs.pop(NO_AXES, None)
        node.inputs.pop()
