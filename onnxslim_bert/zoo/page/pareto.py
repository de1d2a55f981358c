"""Which points are worth having."""

from collections.abc import Sequence


def pareto(costs: Sequence[tuple[float, ...]]) -> list[int]:
    """The indices of the points to which no other is preferable: nowhere dearer and somewhere cheaper.

    costs [points, axes], less is better on every axis. Equal points are all kept.
    """
    return [
        index
        for index, cost in enumerate(costs)
        if not any(other != cost and all(a <= b for a, b in zip(other, cost, strict=True)) for other in costs)
    ]
