"""The range of values that each tensor of a graph is quantized for: from its operator, or seen in calibration."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.calibration.observers import Range
from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.gelu_form import gelu

MOVES = frozenset(["Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Expand", "Identity"])
UNITS = {"Softmax": Range(0, 1), "Sigmoid": Range(0, 1), "Tanh": Range(-1, 1)}
LEAST_OF_GELU = -0.7518  # the x at which GELU(x) is least
NEGLIGIBLE = 16.0  # a score so far below the largest gets e**-16 of its weight, less than one of 65,536 levels


def source_of(tensor: gs.Tensor) -> gs.Tensor:
    """The tensor whose values `tensor` holds moved: in another shape, order or part. Both have one quantizer."""
    while (node := producer(tensor)) is not None and node.op in MOVES:
        tensor = node.inputs[0]
    return tensor


def is_unit(tensor: gs.Tensor) -> bool:
    """Whether `tensor` holds results of Softmax, Sigmoid or Tanh, which never leave a known range."""
    node = producer(source_of(tensor))
    return node is not None and node.op in UNITS


def wanted(tensors: Iterable[gs.Tensor]) -> list[str]:
    """The names of the tensors whose smallest and largest value must be found by calibration; others are computed."""
    sources = {source.name: source for source in map(source_of, tensors)}
    return [name for name, source in sources.items() if not _is_gelu(source) and _ruled(source) is None]


def range_of(tensor: gs.Tensor, seen: Mapping[str, Range]) -> Range:
    """The range of `tensor`: computed from its operator or table where that is possible, else the one `seen`.

    Attention scores, a sum of scores and the bias of padding, are cut NEGLIGIBLE below the lowest score of a real
    token, since Softmax makes nothing of less. Otherwise the bias, -10000 for instance, would take nearly all levels.
    """
    source = source_of(tensor)
    node = producer(source)
    if node is not None and _is_gelu(source):
        return gelu_range(range_of(node.inputs[0], seen))
    span = _ruled(source) or seen[source.name]
    if node is not None and node.op == "Add" and any(reader.op == "Softmax" for reader in source.outputs):
        lows = [range_of(term, seen).low for term in node.inputs]
        return Range(max(span.low, max(lows) - NEGLIGIBLE), span.high)
    return span


def gelu_range(span: Range) -> Range:
    """The range of GELU(x) for x in `span`. Example: [-3, 2] gives [-0.17, 1.95]."""
    ends = [span.low, span.high] + [LEAST_OF_GELU] * (span.low < LEAST_OF_GELU < span.high)
    values = gelu(np.array(ends), "erf")
    return Range(float(values.min()), float(values.max()))


def _ruled(source: gs.Tensor) -> Range | None:
    """The range, where it needs no calibration: of a constant, an operator in UNITS, a product of two tables' rows."""
    node, values = producer(source), constant(source)
    if values is not None:
        return Range(float(values.min()), float(values.max()))
    if node is None or node.op != "Mul":
        return None if node is None else UNITS.get(node.op)
    tables = [values for term in node.inputs if (values := constant(source_of(term))) is not None]
    if len(tables) < 2:
        return None
    corners = [a * b for a in (tables[0].min(), tables[0].max()) for b in (tables[1].min(), tables[1].max())]
    return Range(float(min(corners)), float(max(corners)))


def _is_gelu(tensor: gs.Tensor) -> bool:
    node = producer(tensor)
    return node is not None and node.op == "Gelu"
