"""Decide which quantizer each tensor of a graph gets, and insert them all."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.calibration.observers import Range
from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.int8.qdq_form import to_qdq_form
from onnxslim_bert.rewriting.int8.qdq_ranges import MOVES, is_unit, range_of, source_of
from onnxslim_bert.rewriting.int8.qdq_writer import (
    QdqWriter,
    Quantizer,
    around_zero,
    dividing,
    of_bias,
    per_output,
    spanning,
)

Unsigned = type[np.unsignedinteger]
# Ranges are so many times what calibration saw, for rows that it did not see: 16 bits have levels to spare, 8 have not.
HEADROOM: Mapping[Unsigned, float] = {np.uint8: 1.0, np.uint16: 1.25}


@dataclass(frozen=True)
class Inserted:
    """How many tensors were quantized: activations, and constants as they are stored."""

    activations: int
    constants: int


def insert_qdq(
    model: Model, seen: Mapping[str, Range], dtype: Unsigned = np.uint16, narrow: Collection[str] = ()
) -> Inserted:
    """Quantize every float tensor of `model`; activations have the type `dtype`.

    seen: the ranges of the wanted tensors (`qdq_ranges.wanted`) on calibration rows. narrow: names of nodes that work
    in uint8 all the same. A tensor that a node of one type writes and one of the other type reads is converted between
    them. Raises PassError as `to_qdq_form` does.
    """
    form = to_qdq_form(model)
    nodes = list(model.graph.nodes)
    spans = {tensor.name: range_of(tensor, seen) for tensor in form.tensors}
    plan = _Plan(form.units, spans, {node.name: _works_in(node, dtype, narrow) for node in nodes})
    # all is decided before anything is written, which would hide what tensors come from
    writers = [(node, tensor) for node in nodes for tensor in node.outputs if tensor.name in spans]
    results = [(tensor, plan.of_result(node, tensor)) for node, tensor in writers]
    conversions = [
        (tensor, readers, plan.of_activation(tensor, kind))
        for tensor, quantizer in results
        for kind in HEADROOM
        if kind != quantizer.dtype and (readers := plan.workers(tensor, kind))
    ]
    constants = [
        (node, position, plan.of_constant(node, position))
        for node in nodes
        for position, tensor in enumerate(node.inputs)
        if (values := constant(tensor)) is not None and values.dtype == np.float32
    ]
    writer = QdqWriter(model)
    for result in results:
        writer.variable(*result)
    for conversion in conversions:
        writer.converted(*conversion)
    for stored in constants:
        writer.constant(*stored)
    model.changed()
    return Inserted(len(results), len(writer.stored))


@dataclass(frozen=True)
class _Plan:
    """What decides the quantizers.

    units: names of the tables that `split_rows` scaled. spans: the range of each activation, by name. types: the type
    in which each node works, by name.
    """

    units: Collection[str]
    spans: Mapping[str, Range]
    types: Mapping[str, Unsigned]

    def workers(self, tensor: gs.Tensor, kind: Unsigned) -> list[gs.Node]:
        """The nodes that compute with `tensor` in the type `kind`; nodes that only move values are left out."""
        return [node for node in tensor.outputs if node.op not in MOVES and self.types[node.name] is kind]

    def of_activation(self, tensor: gs.Tensor, kind: Unsigned) -> Quantizer:
        span = self.spans[tensor.name]
        if is_unit(tensor):
            return dividing(span.low, span.high, kind)
        room = HEADROOM[kind] if constant(source_of(tensor)) is None else 1
        return spanning(span.low * room, span.high * room, kind)

    def of_result(self, node: gs.Node, tensor: gs.Tensor) -> Quantizer:
        is_table = source_of(tensor).name in self.units
        return around_zero(1) if is_table else self.of_activation(tensor, self.types[node.name])

    def of_constant(self, node: gs.Node, position: int) -> Quantizer:
        tensor, kind = node.inputs[position], self.types[node.name]
        if node.op in ("MatMul", "Gemm") and position > 0:
            weight = per_output(node.inputs[1].values, 0 if node.attrs.get("transB") else 1)
            return weight if position == 1 else of_bias(self.of_activation(node.inputs[0], kind), weight)
        is_table = tensor.name in self.units
        return around_zero(1) if is_table else spanning(float(tensor.values.min()), float(tensor.values.max()), kind)


def _works_in(node: gs.Node, dtype: Unsigned, narrow: Collection[str]) -> Unsigned:
    """The type in which `node` works. A node that only moves values has the type of the node that computed them."""
    if node.op in MOVES:
        above = producer(source_of(node.inputs[0]))
        return dtype if above is None else _works_in(above, dtype, narrow)
    return np.uint8 if node.name in narrow else dtype
