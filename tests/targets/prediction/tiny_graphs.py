"""Graphs of a few nodes, as files, and what is predicted of them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from onnxslim_bert.arrays import Array
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.prediction.predict import predict


def write_graph(folder: Path, text: str, constants: Mapping[str, Array] | None = None, opset: int = 17) -> Path:
    """The graph written as in ONNX's own syntax, "(float[2,3] x) => (float[2,3] y) {y = Relu(x)}", with `constants`.

    https://onnx.ai/onnx/repo-docs/Syntax.html
    """
    header = f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]>'
    model = onnx.parser.parse_model(f"{header} tiny {text}")
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, name) for name, v in (constants or {}).items())
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    path = folder / "tiny.onnx"
    onnx.save(model, path)
    return path


def predicted(
    folder: Path, target: str, text: str, constants: Mapping[str, Array] | None = None, opset: int = 17
) -> Placement:
    """What `target` would take of the graph."""
    return predict(write_graph(folder, text, constants, opset), target)


def noise(*shape: int) -> Array:
    """Random floats of that shape."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def numbers(*values: int) -> Array:
    """int64 values, as shapes and axes are."""
    return np.array(values, np.int64)
