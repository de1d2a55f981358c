"""The int8 matrices of a model's dense layers, and each in fewer bits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import ModelError
from onnxslim_bert.model.linear import Linear, is_linear, read_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.int8.blockwise import gptq, round_blocks
from onnxslim_bert.rewriting.int8.packed_weight import PackedWeight

FEWEST = 4096  # entries of a matrix from which the nodes that restore it are worth their bytes


@dataclass(frozen=True)
class Int8Matrix:
    """An int8 constant that dense layers multiply by. size: its entries. readers: the layers, at least one."""

    weight: str
    trans_b: bool
    size: int
    readers: tuple[Linear, ...]

    @property
    def is_large(self) -> bool:
        """Whether fewer bits are worth the nodes that restore it."""
        return self.size >= FEWEST

    def values(self, model: Model) -> Array:
        """int8 [d_in, d_out]."""
        values = model.array(self.weight)
        return values.T if self.trans_b else values


def int8_matrices(model: Model) -> list[Int8Matrix]:
    """The int8 matrices of dense layers: layer by layer in the order of their roles (`Layer.linears`), then others.

    Where no encoder is found, all are in the order in which the graph reads them.
    """
    found: dict[tuple[str, bool], list[Linear]] = {}
    linears = [read_linear(node) for node in model.graph.nodes if is_linear(node)]
    places = _places(model)
    for linear in sorted(linears, key=lambda linear: places.get(linear.node, len(places))):
        if linear.quantized and model.array(linear.weight).dtype == np.int8 and model.array(linear.weight).ndim == 2:
            found.setdefault((linear.weight, linear.trans_b), []).append(linear)
    return [Int8Matrix(*key, model.array(key[0]).size, tuple(readers)) for key, readers in found.items()]


def _places(model: Model) -> dict[str, int]:
    """The place of each dense layer of the encoder, by its node."""
    try:
        layers = model.encoder.layers
    except ModelError:
        return {}
    nodes = [one.node for layer in layers for linear in layer.linears.values() for one in linear.matrices]
    return {node: place for place, node in enumerate(nodes)}


def second_moment(matrix: Int8Matrix, stats: Mapping[Want, Any]) -> Array:
    """The mean of x.T @ x over all rows x that `matrix` multiplies, [d_in, d_in]; stats: "gram" of each source."""
    grams = [stats[Want(linear.source, "gram")] for linear in matrix.readers]
    moment: Array = np.sum([gram.products for gram in grams], 0) / sum(gram.rows for gram in grams)
    return moment


def pack(values: Array, moment: Array | None, bits: int, block: int) -> PackedWeight:
    """`values`, int8 [d_in, d_out], in `bits` an entry: by GPTQ for inputs of this moment, else to the nearest."""
    matrix = values.astype(np.float32)
    return PackedWeight.of(round_blocks(matrix, bits, block) if moment is None else gptq(matrix, moment, bits, block))
