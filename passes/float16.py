"""Store and compute in half precision."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.exact_arithmetic import exact_nodes
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass

INTEGERS = frozenset(
    [
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "MatMulIntegerToFloat"),
        *("QAttention", "DynamicQuantizeMatMul", "MatMulNBits", "GatherBlockQuantized"),
    ]
)
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Float16(Pass):
    """Convert weights and activations to float16; inputs and outputs keep their types.

    The file has half the size; on CPUs without float16 arithmetic it is not faster. Constants beyond float16's range
    (masks of -3.4e38) are clamped to it (to -65504). ONNX Runtime's own converter rewrites the graph
    (onnxruntime/transformers/float16.py). Two kinds of nodes stay float32, between casts: those that the converter
    cannot convert, and those that float16 would falsify, on positions and of squares (`exact_nodes`).
    """

    name: ClassVar[str] = "float16"

    def apply(self, model: Model, ctx: Context) -> Change:
        check_is_float(model)
        before = sum(c.values.dtype == np.float32 for c in model.constants().values())
        if not before:
            return Change(0, "no float32 constants are left")
        for name, constant in model.constants().items():
            if constant.values.dtype == np.float32 and np.abs(constant.values).max(initial=0) > LARGEST:
                model.replace(name, np.clip(constant.values, -LARGEST, LARGEST))
        for i, node in enumerate(exact := exact_nodes(model.graph)):
            node.name = node.name or f"exact/{i}"
        proto = onnx.shape_inference.infer_shapes(model.proto())
        converted = convert_float_to_float16(
            proto, keep_io_types=True, disable_shape_infer=True, node_block_list=[node.name for node in exact]
        )
        model.graph = Model.from_proto(converted).graph
        model.changed()
        after = sum(c.values.dtype == np.float32 for c in model.constants().values())
        return Change(before - after, f"{before - after} of {before} float32 constants became float16")


def check_is_float(model: Model) -> None:
    """Raise PassError where `model` is quantized."""
    if node := next((node for node in model.graph.nodes if node.op in INTEGERS), None):
        raise PassError(f"float16: node {node.name!r} ({node.op}) is quantized; start from the float32 model")
