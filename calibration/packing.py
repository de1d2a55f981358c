"""Calibration statistics as arrays and back, exactly."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Gram, Histogram, Range

# What the observers answer that is no array, by kind of statistic; their numbers become arrays without a dimension.
TYPES: dict[str, type[Any]] = {"minmax": Range, "moving-average": Range, "histogram": Histogram, "gram": Gram}


def packed(kind: str, statistics: Sequence[Any]) -> dict[str, Array]:
    """Statistics of one kind as arrays by place and name: 0.low, 0.high, 1.low, ...; an array alone is 0.values."""
    if kind not in TYPES:
        return {f"{i}.values": values for i, values in enumerate(statistics)}
    names = [field.name for field in fields(TYPES[kind])]
    return {f"{i}.{name}": np.asarray(getattr(one, name)) for i, one in enumerate(statistics) for name in names}


def unpacked(kind: str, arrays: Mapping[str, Array], count: int) -> list[Any]:
    """The `count` statistics that `packed` made arrays of. Raises KeyError when they are not there."""
    if kind not in TYPES:
        return [arrays[f"{i}.values"] for i in range(count)]
    names = [field.name for field in fields(TYPES[kind])]
    return [TYPES[kind](**{name: _plain(arrays[f"{i}.{name}"]) for name in names}) for i in range(count)]


def _plain(values: Array) -> Any:
    """The number that an array without a dimension holds; any other array as it is."""
    return values if values.ndim else values.item()
