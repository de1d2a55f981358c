"""Bring a graph into the form that takes Q/DQ: pairs of QuantizeLinear and DequantizeLinear around every operator."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import MICROSOFT, constant
from onnxslim_bert.model.gelu_form import fuse_gelus
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import infer_shapes

QUANTIZED = frozenset(["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulNBits"])
LARGEST = 1e6  # a constant beyond it is no weight but stands for infinity
FEWEST_ROWS = 256  # tables from so many rows up get a scale a row, which takes another lookup and a Mul


@dataclass(frozen=True)
class QdqForm:
    """A graph ready for Q/DQ.

    tensors: the float tensors that nodes write, in execution order. units: the names of the tables whose rows were
    scaled, each to 1 as its largest absolute value (`split_rows`).
    """

    tensors: list[gs.Tensor]
    units: frozenset[str]


def to_qdq_form(model: Model) -> QdqForm:
    """Rewrite `model` for Q/DQ; tensors that stay keep their names.

    Each GELU becomes one node, and each lookup in a large table a product (`split_rows`). Exact but for rounding, with
    one exception: GELU approximated by tanh becomes GELU itself below opset 20, because that is what QNN has.
    Raises PassError, naming the pass to run first, for a graph that Q/DQ cannot go into (`check_float`, fixed shapes).
    """
    check_float(model)
    unknown = infer_shapes(model)
    if unknown:
        raise PassError(f"quantize-qdq: the shape of tensor {unknown[0]!r} is not fixed; run fix-shapes first")
    fuse_gelus(model, "contrib")
    for node in model.graph.nodes:
        if node.op in ("Gelu", "FastGelu"):
            node.op, node.outputs[0].dtype = "Gelu", np.dtype(np.float32)
    units = split_rows(model)
    return QdqForm([t for node in model.graph.nodes for t in node.outputs if t.dtype == np.float32], units)


def check_float(model: Model) -> None:
    """Raise PassError unless the graph is in float32 and standard operators, GELU apart, with a finite mask."""
    for node in model.graph.nodes:
        place = f"quantize-qdq: node {node.name!r} ({node.op})"
        if node.op in QUANTIZED:
            raise PassError(f"{place} is quantized already; start from the float model")
        if node.domain == MICROSOFT and node.op not in ("Gelu", "FastGelu"):
            raise PassError(f"{place} is a com.microsoft operator; run canonicalize,fuse{{style=standard}} first")
        if node.op == "Sum":
            raise PassError(f"{place} adds any number of tensors; run split-sums first")
        floats = [values for t in node.inputs if (values := constant(t)) is not None and values.dtype.kind == "f"]
        if any(values.dtype != np.float32 for values in floats):
            raise PassError(f"{place} computes in {floats[0].dtype}; start from the float32 model")
        if any(np.abs(values).max(initial=0) > LARGEST for values in floats):
            raise PassError(f"{place} hides tokens by infinity or nearly; {_how_to_bound(model)}")


def _how_to_bound(model: Model) -> str:
    """What the user can do to make the mask finite, in words: run `mask-bias`, where every attention is proven."""
    unproven = next((layer for layer in model.encoder.layers if layer.form is None), None)
    if unproven is None:
        return "run mask-bias first"
    return (
        f"mask-bias cannot bound it, because layer {unproven.index}'s attention is not proven ({unproven.reason}): "
        "export the model with a finite mask, or for another target"
    )


def split_rows(model: Model) -> frozenset[str]:
    """Write each lookup in a large float table as a product, unit[ids] * peaks[ids]; return the names of the units.

    table [rows, width] becomes unit [rows, width], each row divided by its largest absolute value, and peaks [rows, 1],
    those values. Example: the row [2, -4] is [0.5, -1] times 4. QNN's lookups take one int8 scale a table only; for
    unit that is as exact as a scale for each row of the table.
    """
    build = Builder(model.graph, "")
    units = set()
    for node in list(model.graph.nodes):
        table = constant(node.inputs[0]) if node.op == "Gather" else None
        if table is None or table.dtype != np.float32 or table.ndim != 2 or len(table) < FEWEST_ROWS:
            continue
        name, result, rest = node.inputs[0].name, node.outputs[0], list(node.inputs[1:])
        peaks = np.abs(table).max(1, keepdims=True)
        peaks[peaks == 0] = 1
        parts = [build.constant(f"{name}/{part}", v) for part, v in (("unit", table / peaks), ("peaks", peaks))]
        units.add(parts[0].name)
        node.outputs.clear()
        found = [build.node("Gather", f"{node.name}/rows", [part, *rest], **node.attrs) for part in parts]
        for tensor in found:
            tensor.dtype = np.dtype(np.float32)
        model.graph.nodes.append(gs.Node("Mul", f"{node.name}/scaled", inputs=found, outputs=[result]))
    model.changed()
    return frozenset(units)
