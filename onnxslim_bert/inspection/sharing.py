"""Which roles of a model hold the same weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.model.encoder import Encoder
from onnxslim_bert.model.onnx_model import Model


@dataclass(frozen=True)
class Use:
    """One role of a weight: "word", "query", "head", ... layer: None outside the layers."""

    role: str
    layer: int | None = None


@dataclass(frozen=True)
class Shared:
    """Weights that several roles hold.

    constants: their names, more than one when a role holds them transposed. nbytes: of one copy.
    copies: how often the file stores them.
    """

    uses: tuple[Use, ...]
    constants: tuple[str, ...]
    nbytes: int
    copies: int


def find_shared(model: Model, stored: Mapping[str, Array]) -> tuple[Shared, ...]:
    """The weights with several roles in a canonicalized model, whose file stores the arrays `stored`."""
    arrays = {name: constant.values for name, constant in model.constants().items()}
    tables = model.encoder.embeddings.tables.values()
    twins = {
        linear.weight: table
        for linear in model.encoder.head
        for table in tables
        if linear.weight != table and _are_equal(arrays[linear.weight], arrays[table])
    }
    uses: dict[str, list[Use]] = {}
    for name, use in _uses(model.encoder):
        uses.setdefault(twins.get(name, name), []).append(use)
    return tuple(
        Shared(
            uses=tuple(held),
            constants=(name, *(twin for twin, table in twins.items() if table == name)),
            nbytes=arrays[name].nbytes,
            copies=max(1, sum(_are_equal(arrays[name], values) for values in stored.values())),
        )
        for name, held in uses.items()
        if len(held) > 1
    )


def _uses(encoder: Encoder) -> Iterator[tuple[str, Use]]:
    """The name of each weight, with each of its roles."""
    for role, table in encoder.embeddings.tables.items():
        yield table, Use(role)
    if encoder.embeddings.projection:
        yield encoder.embeddings.projection.weight, Use("projection")
    for layer in encoder.layers:
        for role, linear in layer.linears.items():
            yield linear.weight, Use(role, layer.index)
    for linear in encoder.head:
        yield linear.weight, Use("head")


def _are_equal(values: Array, others: Array) -> bool:
    """Whether two matrices hold the same values, or one those of the other transposed."""
    if values.dtype != others.dtype or values.size != others.size:
        return False
    return np.array_equal(values, others) or np.array_equal(values.T, others)
