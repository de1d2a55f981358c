"""Models of two nodes, and targets to run them on."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxslim_bert.targets.setup import Setup
from onnxslim_bert.targets.table import TARGETS
from onnxslim_bert.targets.target import Target

TAKES_NOTHING = "AzureExecutionProvider"  # part of the usual builds; it never takes a node


def dense(path: Path, batch: int | str = 2, length: int | str = 3) -> Path:
    """y [batch, length, 5] = relu(x [batch, length, 8] w); the nodes are called dense and relu."""
    weights = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "dense"), helper.make_node("Relu", ["h"], ["y"], "relu")]
    return _save(path, nodes, [batch, length, 8], [batch, length, 5], [numpy_helper.from_array(weights, "w")])


def half_taken(path: Path) -> Path:
    """A Relu, which every provider takes, and a NonZero, whose result has no fixed shape: QNN leaves it."""
    nodes = [helper.make_node("Relu", ["x"], ["h"], "relu"), helper.make_node("NonZero", ["h"], ["y"], "places")]
    return _save(path, nodes, [1, 4], [2, "found"], [], TensorProto.INT64)


def here(name: str) -> Target:
    """The target, or skip the test where nothing executes on it."""
    if why := TARGETS[name].absent():
        pytest.skip(why)
    return TARGETS[name]


def taking_nothing() -> Target:
    """A target that opens every model and runs none of it, in silence."""
    if TAKES_NOTHING not in ort.get_available_providers():
        pytest.skip(f"this build has no {TAKES_NOTHING}")
    return Target("idle", TAKES_NOTHING, lambda options, threads: Setup(TAKES_NOTHING), ("float32",), "nowhere")


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    x: list[int | str],
    y: list[int | str],
    weights: list[onnx.TensorProto],
    kind: int = TensorProto.FLOAT,
) -> Path:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)]
    graph = helper.make_graph(nodes, "tiny", inputs, [helper.make_tensor_value_info("y", kind, y)], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
