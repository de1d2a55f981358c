"""Check what ONNX Runtime makes of an int8 model: no weight may be dequantized while it runs."""

import tempfile
from pathlib import Path

import onnx

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.sessions import load, session_options

SMALL = 4096  # elements up to which a constant may be dequantized: biases, scales


def optimized_graph(model: Path) -> onnx.GraphProto:
    """The graph that ONNX Runtime's CPU provider runs for the file at `model`."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options()
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        load(model, options)
        return onnx.load(options.optimized_model_filepath, load_external_data=False).graph


def check_weights_stay_int8(model: Path) -> None:
    """Raise PassError when the graph that runs turns an int8 weight back into floats."""
    graph = optimized_graph(model)
    sizes = {t.name: _count(t) for t in graph.initializer}
    for node in graph.node:
        weight = {"DequantizeLinear": 0, "MatMulNBits": 1}.get(node.op_type)  # the second unpacks weights as it goes
        if weight is not None and sizes.get(node.input[weight], 0) > SMALL:
            raise PassError(
                f"ONNX Runtime dequantizes weight {node.input[weight]!r} at every run (node {node.name!r}, "
                f"{node.op_type}); please report this graph, and use --format contrib meanwhile"
            )


def _count(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count
