"""The Pareto front: the points that no other point beats."""

from collections.abc import Sequence


def pareto(costs: Sequence[tuple[float, ...]]) -> list[int]:
    """The indices of the points that no other beats, by costing less on one axis and no more on the others.

    costs [points, axes]: less is better. Equal points are all kept. Example: [(1, 3), (2, 2), (2, 3)] gives [0, 1].
    """
    return [
        index
        for index, cost in enumerate(costs)
        if not any(other != cost and all(a <= b for a, b in zip(other, cost, strict=True)) for other in costs)
    ]
