"""What int8 graphs are held to, whichever pass and format wrote them."""

from collections import Counter

import numpy as np
from oracles import matrix, optimized

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.probe import producer
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.targets.int8_kernels import u8s8_saturates

INTEGER_PRODUCTS = ("MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul", "QGemm")


def linears_of(model: Model) -> list[Linear]:
    """The dense layers of the encoder: the projection of its tables, and those of each layer."""
    projection = model.encoder.embeddings.projection
    inside = [linear for layer in model.encoder.layers for linear in layer.linears.values()]
    return [*([projection] if projection else []), *inside]


def stored(model: Model, linear: Linear) -> tuple[Array, Array]:
    """The integers [d_in, d_out] and the scales [d_out] of an int8 layer."""
    node = next(node for node in model.graph.nodes if node.name == linear.node)
    scales = node.inputs[3] if node.op == "MatMulIntegerToFloat" else producer(node.inputs[1]).inputs[1]
    return matrix(model, linear), scales.values


def assert_weights_close(model: Model, original: Model) -> None:
    """Every weight of the encoder is int8, with one scale an output channel, within half of it of the float weight."""
    for linear, before in zip(linears_of(model), linears_of(original), strict=True):
        integers, scales = stored(model, linear)
        weight = matrix(original, before)
        assert linear.quantized
        assert (integers.dtype, scales.dtype, scales.shape) == (np.int8, np.float32, (before.d_out,))
        assert (np.abs(integers * scales - weight) <= scales / 2 * (1 + 1e-5)).all(), linear.node
        full = _largest_of_pairs(integers) >= 127 if u8s8_saturates() else np.abs(integers).max(0) == 127
        assert full.all(), f"{linear.node} leaves levels unused"


def _largest_of_pairs(integers: np.ndarray) -> np.ndarray:
    """The largest sum of two neighbouring integers of one sign, for each column."""
    pairs = np.pad(integers.astype(int), ((0, len(integers) % 2), (0, 0))).reshape(-1, 2, integers.shape[1])
    return np.maximum(np.maximum(pairs, 0).sum(1), np.maximum(-pairs, 0).sum(1)).max(0)


def assert_inputs_quantized_once(model: Model) -> None:
    """One quantization for each tensor that dense layers read, however many they are."""
    quantized = [n.inputs[0].name for n in model.graph.nodes if n.op in ("QuantizeLinear", "DynamicQuantizeLinear")]
    assert len(quantized) == len(set(quantized))
    assert len(quantized) == len({linear.source for linear in linears_of(model)})


def assert_tables_close(model: Model, original: Model) -> None:
    """Every embedding table is int8, with one scale a row, and no float copy of it is left."""
    tables = original.encoder.embeddings.tables
    assert set(model.encoder.embeddings.tables) == set(tables)
    for role, name in model.encoder.embeddings.tables.items():
        rows, table = model.array(name), original.array(tables[role])
        scales = [c.values for c in model.constants().values() if c.values.shape == (len(table), 1)]
        assert rows.dtype == np.int8, role
        assert any((np.abs(rows * s - table) <= s / 2 * (1 + 1e-5)).all() for s in scales), role
        assert not any(c.values.shape == table.shape and c.values.dtype.kind == "f" for c in model.constants().values())


def assert_runs_in_integers(model: Model) -> None:
    """ONNX Runtime multiplies integers in every dense layer of the encoder, and dequantizes no weight to do so."""
    graph = optimized(model)
    operators = Counter(node.op_type for node in graph.node)
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    by_matrix = [node for node in graph.node if any(name in matrices for name in node.input)]
    floats = [node.name for node in by_matrix if node.op_type in ("MatMul", "FusedMatMul", "Gemm", "FusedGemm")]
    assert not [node.name for node in by_matrix if node.op_type in ("DequantizeLinear", "MatMulNBits")]
    assert sum(operators[op] for op in INTEGER_PRODUCTS) == len(linears_of(model)), operators
    assert len(floats) == len(model.encoder.head), floats
