"""The optimized graph is read for weights that become float again."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxslim_bert.errors import PassError
from onnxslim_bert.targets.int8_check import SMALL, check_weights_stay_int8

SHAPE = (64, 65)


def quantized_layer(path: Path, add: str) -> Path:
    """x [rows, 64] -> y [rows, 65], in QuantizeLinear and DequantizeLinear, its bias added by the operator `add`."""
    constants = {
        "scale": np.array(0.02, np.float32),
        "zero_point": np.array(120, np.uint8),
        "weight": np.ones(SHAPE, np.int8),
        "scales": np.full(SHAPE[1], 0.01, np.float32),
        "bias": np.ones(SHAPE[1], np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["levels"]),
        helper.make_node("DequantizeLinear", ["levels", "scale", "zero_point"], ["restored"]),
        helper.make_node("DequantizeLinear", ["weight", "scales"], ["columns"], axis=1),
        helper.make_node("MatMul", ["restored", "columns"], ["product"]),
        helper.make_node(add, ["product", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", SHAPE[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", SHAPE[1]])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_integer_product_passes(tmp_path):
    """A Sum carries the bias: ONNX Runtime multiplies integers."""
    assert np.prod(SHAPE) > SMALL
    check_weights_stay_int8(quantized_layer(tmp_path / "m.onnx", "Sum"))


def test_a_weight_that_is_dequantized_at_every_run_is_refused(tmp_path):
    """An Add carries the bias: ONNX Runtime makes a float Gemm of it."""
    with pytest.raises(PassError, match="ONNX Runtime dequantizes weight 'weight' at every run"):
        check_weights_stay_int8(quantized_layer(tmp_path / "m.onnx", "Add"))


def test_what_the_source_dequantizes_already_is_left_to_it(tmp_path):
    """An exact pass on a file that others quantized is not at fault for how it runs."""
    slow, fast = (quantized_layer(tmp_path / f"{add}.onnx", add) for add in ("Add", "Sum"))
    check_weights_stay_int8(slow, slow)
    with pytest.raises(PassError, match="'weight' at every run"):
        check_weights_stay_int8(slow, fast)


def test_a_weight_that_the_file_itself_restores_is_left_to_it(tmp_path):
    """Next to float activations, or to such of 16 bits, no integer product was promised."""
    path = quantized_layer(tmp_path / "m.onnx", "Add")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "zero_point":
            tensor.CopyFrom(numpy_helper.from_array(np.array(32_000, np.uint16), "zero_point"))
    model.opset_import[0].version = 21
    model.ir_version = 10
    onnx.save(model, path)
    check_weights_stay_int8(path)
    (product,) = (node for node in model.graph.node if node.op_type == "MatMul")
    product.input[0] = "x"
    onnx.save(model, path)
    check_weights_stay_int8(path)
