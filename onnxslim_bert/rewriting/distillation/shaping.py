"""The operators that move, look up and shape values without computing new ones, in PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def _sizes(tensor: Tensor) -> list[int]:
    """A tensor of sizes, axes or places as numbers."""
    return [int(number) for number in tensor.reshape(-1).tolist()]


def _reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    sizes = _sizes(shape)
    if not allowzero:
        sizes = [size or x.shape[axis] for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    at = axis % x.ndim if axis < 0 else axis
    return x.reshape(int(torch.tensor(x.shape[:at]).prod()), -1)


def _transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    return x.permute(*(reversed(range(x.ndim)) if perm is None else perm))


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    places = _sizes(axes)
    for axis in sorted(axis % (x.ndim + len(places)) for axis in places):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(_sizes(axes)))


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, _sizes(shape)))


def _concat(*parts: Tensor, axis: int) -> Tensor:
    return torch.cat(parts, axis)


def _split(x: Tensor, sizes: Tensor | None = None, *, axis: int = 0, num_outputs: int = 0) -> tuple[Tensor, ...]:
    each = -(-x.shape[axis] // num_outputs) if sizes is None else _sizes(sizes)
    return tuple(x.split(each, axis))


def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    first, last = _sizes(starts), _sizes(ends)
    along = list(range(len(first))) if axes is None else _sizes(axes)
    by = [1] * len(first) if steps is None else _sizes(steps)
    for start, end, axis, step in zip(first, last, along, by, strict=True):
        places = range(x.shape[axis])[start:end:step]
        if step > 0:
            x = x.narrow(axis, places.start, max(places.stop - places.start, 0))
            x = x if step == 1 else x[(slice(None),) * (axis % x.ndim) + (slice(None, None, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64))
    return x


def _from_front(places: Tensor, count: int) -> Tensor:
    """Places of which negative ones are counted from the end, as numbers from 0."""
    return torch.where(places < 0, places + count, places).long()


def _gather(x: Tensor, places: Tensor, *, axis: int = 0) -> Tensor:
    at = axis % x.ndim
    found = _from_front(places, x.shape[at])
    if at == 0 and x.ndim == 2:
        return functional.embedding(found, x)
    taken = x.index_select(at, found.reshape(-1))
    return taken.reshape([*x.shape[:at], *found.shape, *x.shape[at + 1 :]])


def _gather_elements(x: Tensor, places: Tensor, *, axis: int = 0) -> Tensor:
    return x.gather(axis, _from_front(places, x.shape[axis]))


def _gather_nd(x: Tensor, places: Tensor, *, batch_dims: int = 0) -> Tensor:
    missing = places.ndim - 1 - batch_dims
    rows = [
        torch.arange(size).reshape([size if other == axis else 1 for other in range(batch_dims)] + [1] * missing)
        for axis, size in enumerate(places.shape[:batch_dims])
    ]
    named = [_from_front(index, x.shape[batch_dims + i]) for i, index in enumerate(places.unbind(-1))]
    return x[(*rows, *named)]


def _pad(
    x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None, *, mode: str = "constant"
) -> Tensor:
    if mode != "constant":
        raise NotImplementedError(f"mode {mode!r}")
    sizes, along = _sizes(pads), list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in _sizes(axes)]
    before, after = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(along):
        before[axis], after[axis] = sizes[i], sizes[len(along) + i]
    widths = [size for axis in reversed(range(x.ndim)) for size in (before[axis], after[axis])]  # the last axis first
    return functional.pad(x, widths, value=0 if value is None else value.item())


def _cumulative_sum(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    at = int(axis)
    turned = x.flip(at) if reverse else x
    total = turned.cumsum(at).to(x.dtype) - (turned if exclusive else 0)
    return total.flip(at) if reverse else total


def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


def _constant_of_shape(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    return (torch.zeros(1) if value is None else value).expand(_sizes(shape))


def _range(start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


def _non_zero(x: Tensor) -> Tensor:
    return x.nonzero().T


def _cast(x: Tensor, *, to: torch.dtype) -> Tensor:
    return x.to(to)


def _where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


def _identity(x: Tensor) -> Tensor:
    return x


def _tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(_sizes(repeats))


SHAPING: Mapping[str, Callable[..., Any]] = {
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "CumSum": _cumulative_sum,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": _identity,
    "NonZero": _non_zero,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
