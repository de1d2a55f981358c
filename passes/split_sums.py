"""Sums of several tensors as additions of two."""

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import renew_shapes
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.wording import plural


@dataclass(frozen=True)
class SplitSums(Pass):
    """Write each `Sum` as `Add`s of two tensors, the only addition that CoreML, NNAPI and QNN take. Exact.

    `fuse` writes `Sum` for the CPU provider, which would turn an `Add` before a norm into an operator that it runs
    slower. So this is for a file that another provider runs.
    """

    name: ClassVar[str] = "split-sums"
    exact: ClassVar[float | None] = 1e-5
    empty_rows: ClassVar[bool] = True
    tokenwise: ClassVar[bool] = True

    def apply(self, model: Model, ctx: Context) -> Change:
        sums = [node for node in model.graph.nodes if node.op == "Sum"]
        for node in sums:
            build = Builder(model.graph, node.name)
            total = reduce(lambda left, right: build.node("Add", "add", [left, right]), node.inputs)
            redirect(model.graph, node.outputs[0], total)
        if not sums:
            return Change(0, "the graph has no Sum")
        model.changed()
        renew_shapes(model)
        return Change(len(sums), f"{plural(len(sums), 'sum')} written as additions of two")
