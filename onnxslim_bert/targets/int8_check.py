"""Check what ONNX Runtime makes of an int8 model: no weight may be dequantized while it runs."""

import math
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import onnx

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.graph.native_path import native_name
from onnxslim_bert.graph.sessions import load, session_options
from onnxslim_bert.graph.wire import read_skeleton

SMALL = 4096  # elements up to which a constant may be dequantized: biases, scales
WEIGHTS = {"DequantizeLinear": 0, "MatMulNBits": 1}  # which input of an operator that restores a weight is the weight
PRODUCTS = ("MatMul", "Gemm")
EIGHT_BITS = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
INTEGER_PRODUCTS = (
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearMatMul",
    "QGemm",
    "QAttention",
)


def optimized_graph(model: Path) -> onnx.GraphProto:
    """The graph that ONNX Runtime's CPU provider runs for the file at `model`."""
    with scratch(model_bytes(model)) as folder:
        options = session_options()
        optimized = folder / "optimized.onnx"
        options.optimized_model_filepath = native_name(optimized)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        load(model, options)
        return onnx.load(optimized, load_external_data=False).graph


def check_weights_stay_int8(model: Path, source: Path | None = None) -> None:
    """Raise PassError when the graph that runs turns an int8 weight back into floats.

    Looked at are weights that the file multiplies by 8-bit activations; those that it restores itself, next to float
    activations, are left to it. A file that multiplies no integers passes.

    source: the model that this one was made of, if any; what was float in the graph that ran there may be so here.
    """
    node = _restoring(model)
    if node is None or (source is not None and _restoring(source) is not None):
        return
    raise PassError(
        f"ONNX Runtime dequantizes weight {node.input[WEIGHTS[node.op_type]]!r} at every run (node {node.name!r}, "
        f"{node.op_type}); please report this graph, and write it in the format contrib meanwhile "
        "(quantize --format contrib; in a recipe, format=contrib)"
    )


def _restoring(model: Path) -> onnx.NodeProto | None:
    """The node that turns an int8 weight of a product of integers into floats, in the graph that runs; None: none."""
    written = read_skeleton(model)[0].graph
    if not multiplies_int8(written):
        return None
    restored = set(restored_weights(written))
    graph = optimized_graph(model)
    sizes = {tensor.name: math.prod(tensor.dims) for part in graphs(graph) for tensor in part.initializer}
    for node in nodes(graph):
        weight = WEIGHTS.get(node.op_type)  # MatMulNBits unpacks weights as it goes
        if weight is not None and node.input[weight] not in restored and sizes.get(node.input[weight], 0) > SMALL:
            return node
    return None


def multiplies_int8(graph: onnx.GraphProto) -> bool:
    """Whether a product of the graph takes 8-bit activations and 8-bit weights."""
    if any(node.op_type in INTEGER_PRODUCTS for node in nodes(graph)):
        return True
    makers, wide = _makers(graph), _wide(graph)
    return any(_is_int8_product(node, makers, wide) for node in nodes(graph))


def restored_weights(graph: onnx.GraphProto) -> Iterator[str]:
    """The names of weights that the file stores as integers and multiplies with float activations, as floats."""
    makers, wide = _makers(graph), _wide(graph)
    for node in nodes(graph):
        if node.op_type == "MatMulNBits":
            yield node.input[1]
        elif node.op_type in PRODUCTS and not _is_int8_product(node, makers, wide):
            yield from (makers[name].input[0] for name in node.input[:2] if _is_restored(name, makers))


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those within its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of the graph and of those within its nodes."""
    return (node for part in graphs(graph) for node in part.node)


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """By each tensor the node that computes it."""
    return {name: node for node in nodes(graph) for name in node.output}


def _is_restored(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    return name in makers and makers[name].op_type == "DequantizeLinear"


def _is_int8_product(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], wide: Set[str]) -> bool:
    """Whether the node multiplies what was rounded to 8 bits. wide: zero points of more."""
    if node.op_type not in PRODUCTS or not all(_is_restored(name, makers) for name in node.input[:2]):
        return False
    return not {name for side in node.input[:2] for name in makers[side].input[2:]} & wide


def _wide(graph: onnx.GraphProto) -> set[str]:
    """The names of constants whose type is not 8-bit integers."""
    constants = (tensor for part in graphs(graph) for tensor in part.initializer)
    return {tensor.name for tensor in constants if tensor.data_type not in EIGHT_BITS}
