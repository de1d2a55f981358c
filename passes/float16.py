"""Store and compute in half precision."""

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnxruntime.transformers.float16 import convert_float_to_float16

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import redirect
from onnxslim_bert.graph.probe import producer
from onnxslim_bert.model.exact_arithmetic import exact_nodes
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.wording import plural

INTEGERS = frozenset(
    [
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "MatMulIntegerToFloat"),
        *("QAttention", "DynamicQuantizeMatMul", "MatMulNBits", "GatherBlockQuantized"),
    ]
)
FLOAT = onnx.TensorProto.FLOAT
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Float16(Pass):
    """Convert weights and activations to float16; inputs and outputs keep their types.

    The file has half the size; on CPUs without float16 arithmetic it is not faster. Constants beyond float16's range
    (masks of -3.4e38) are clamped to it (to -65504). ONNX Runtime's own converter rewrites the graph
    (onnxruntime/transformers/float16.py). Two kinds of nodes stay float32: those that the converter cannot convert, and
    those that float16 would falsify, on positions and of squares (`exact_nodes`); what one of them hands to another is
    not rounded either.
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
        own = {node.name for node in model.graph.nodes}
        converted = convert_float_to_float16(
            typed(model), keep_io_types=True, disable_shape_infer=True, node_block_list=[node.name for node in exact]
        )
        _keep_once(converted.graph)
        model.graph = Model.from_proto(converted).graph
        drop_roundings(model.graph, own)
        model.changed()
        after = sum(c.values.dtype == np.float32 for c in model.constants().values())
        return Change(before - after, f"{before - after} of {plural(before, 'float32 constant')} became float16")


def typed(model: Model) -> onnx.ModelProto:
    """`model` with the type of every tensor: shape inference knows none behind operators of ONNX Runtime alone."""
    proto = onnx.shape_inference.infer_shapes(model.proto())
    known = {value.name for value in (*proto.graph.value_info, *proto.graph.output)}
    others = [name for node in proto.graph.node for name in node.output if name and name not in known]
    if others:
        floats = [
            o.name for o in model_session(model, others, optimize=False).get_outputs() if o.type == "tensor(float)"
        ]
        proto.graph.value_info.extend(onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in floats)
    return proto


def _keep_once(graph: onnx.GraphProto) -> None:
    """Drop nodes that write what another has written: older converters cast a tensor once for each that reads it."""
    kept = {tuple(node.output): node for node in graph.node}.values()
    del graph.node[:]
    graph.node.extend(kept)


def drop_roundings(graph: gs.Graph, own: Set[str]) -> None:
    """Take out the pairs of casts, to float16 and back, that were put between nodes which stay float32.

    own: the names of nodes from before; their casts stay.
    """
    for back in [node for node in graph.nodes if node.op == "Cast" and node.name not in own]:
        there = producer(back.inputs[0])
        if there is not None and there.op == "Cast" and there.name not in own and back.attrs["to"] == FLOAT:
            redirect(graph, back.outputs[0], there.inputs[0])
    graph.cleanup()


def check_is_float(model: Model) -> None:
    """Raise PassError where `model` is quantized."""
    if node := next((node for node in model.graph.nodes if node.op in INTEGERS), None):
        raise PassError(f"float16: node {node.name!r} ({node.op}) is quantized; start from the float32 model")
