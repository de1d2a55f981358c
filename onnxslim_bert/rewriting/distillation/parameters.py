"""How a constant of the graph is trained: as the float that it is, as a scale, or as integers that stay integers.

Quantized constants are trained as they are written: what a step moves is a float, what the graph computes with is what
that float rounds to. Rounding has no slope, so gradients pass it as if it were not there (Bengio et al. 2013,
https://arxiv.org/abs/1308.3432), and those of scales are then those of LSQ (Esser et al. 2020,
https://arxiv.org/abs/1902.08153).
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from onnxslim_bert.arrays import Array
from onnxslim_bert.rewriting.int8.blockwise import pack_blocks, unpack_blocks
from onnxslim_bert.rewriting.int8.quantizers import PAIR_LIMIT
from onnxslim_bert.rewriting.int8.saturation import can_saturate

RATE = 0.015  # of the distance between two integers: in a hundred steps one may become the next


class Trained(Protocol):
    """parameter: what the optimizer moves. rate: AdamW's highest where a layer is trained by itself."""

    parameter: Parameter
    rate: float

    def value(self) -> Tensor:
        """What the graph's operators take, with a gradient."""
        ...

    def array(self) -> Array:
        """The same as the graph stores it."""
        ...


class Plain:
    """A float constant, moved as it is."""

    rate = 1e-4

    def __init__(self, values: Array, dtype: torch.dtype) -> None:
        self.parameter = Parameter(torch.from_numpy(np.array(values)).to(dtype))
        self._stored = values.dtype

    def value(self) -> Tensor:
        return self.parameter

    def array(self) -> Array:
        values: Array = self.parameter.detach().numpy().astype(self._stored)
        return values


class Scale:
    """A scale of integers: what is moved is its share of the scale that it had, so that a step means the same for all.

    It stays positive: a share does not fall below LEAST.
    """

    LEAST = 0.05
    rate = 1e-3

    def __init__(self, values: Array, dtype: torch.dtype) -> None:
        self._first = torch.from_numpy(np.array(values)).to(dtype)
        self._stored = values.dtype
        self.parameter = Parameter(torch.ones_like(self._first))

    def value(self) -> Tensor:
        return self._first * self.parameter.clamp(min=self.LEAST)

    def array(self) -> Array:
        values: Array = self.value().detach().numpy().astype(self._stored)
        return values


class Integers:
    """Integers: what is moved is the weight that they stand for, in units of the weight.

    No integer grows larger than the largest there was, and where products with uint8 fit 16 bits in pairs, as they must
    on CPUs without VNNI, they still do: a pair that would not keeps the integers that it had.
    """

    def __init__(self, values: Array, steps: Array, dtype: torch.dtype) -> None:
        """steps: the scales, of a shape that `values` can be multiplied with."""
        self._stored, self._first = values.dtype, torch.from_numpy(np.array(values)).to(dtype)
        info, largest = np.iinfo(values.dtype), int(np.abs(values.astype(np.int32)).max(initial=0))
        self._bounds = (max(-largest, info.min), min(largest, info.max) if info.min else info.max)
        self._steps = torch.from_numpy(np.where(steps == 0, 1, steps)).to(dtype)
        self._paired = values.ndim == 2 and info.min < 0 and not can_saturate(values).any()
        self.rate = RATE * float(self._steps.mean())
        self.parameter = Parameter(self._first * self._steps)

    def value(self) -> Tensor:
        levels = rounded(self.parameter / self._steps).clamp(*self._bounds)
        if not self._paired:
            return levels
        return torch.where(pairs_fit(levels.detach()), levels, self._first)

    def array(self) -> Array:
        values: Array = self.value().detach().numpy().astype(self._stored)
        return values


class Packed:
    """Levels of `bits` bits, packed as MatMulNBits has them; what is moved is the weight that they stand for.

    The operators get the levels unpacked: float [d_out, blocks, block].
    """

    def __init__(self, values: Array, steps: Array, zeros: Array, bits: int, dtype: torch.dtype) -> None:
        """steps, zeros: those of each block, [d_out, blocks]."""
        levels = torch.from_numpy(unpack_blocks(values, bits)).to(dtype)
        self._bits, self._zeros = bits, torch.from_numpy(zeros[..., None]).to(dtype)
        self._steps = torch.from_numpy(np.where(steps == 0, 1, steps)[..., None]).to(dtype)
        self.rate = RATE * float(self._steps.mean())
        self.parameter = Parameter((levels - self._zeros) * self._steps)

    def value(self) -> Tensor:
        return (rounded(self.parameter / self._steps) + self._zeros).clamp(0, (1 << self._bits) - 1)

    def array(self) -> Array:
        levels = self.value().detach().numpy().astype(np.uint8)
        return pack_blocks(levels.reshape(len(levels), -1).T, self._bits, levels.shape[-1])


def rounded(values: Tensor) -> Tensor:
    """The nearest whole numbers, of two the even one; gradients pass as if nothing were rounded."""
    return values + (values.round() - values).detach()


def pairs_fit(levels: Tensor) -> Tensor:
    """Whether the integers at inputs 2i and 2i + 1 of `levels` [d_in, d_out] fit 16 bits with uint8; for each entry."""
    filled = torch.nn.functional.pad(levels, (0, 0, 0, len(levels) % 2)).reshape(-1, 2, levels.shape[1])
    largest = torch.maximum(filled.clamp(min=0).sum(1), (-filled).clamp(min=0).sum(1))
    return (largest <= PAIR_LIMIT).repeat_interleave(2, 0)[: len(levels)]
