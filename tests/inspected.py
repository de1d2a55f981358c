"""Fixtures, inspected once and kept."""

import functools

from graphs import fixture

from onnxslim_bert.inspection.inspection import Anatomy, inspect


@functools.cache
def inspected(name: str, batch: int = 1, seq: int = 128) -> Anatomy:
    """The encoder of the fixture `name`."""
    found = inspect(fixture(name), batch=batch, seq=seq)
    assert found.encoder is not None, found.reason
    return found.encoder


def costs(found: Anatomy, column: str) -> dict[str, int]:
    """One column of the costs by part: "parameters", "nbytes" or "flops"."""
    return {cost.part: getattr(cost, column) for cost in found.costs}
