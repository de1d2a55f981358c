"""What is measured once and used again: arrays, addressed by the content of everything that decides them."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

from onnxslim_bert.arrays import Array
from onnxslim_bert.machine import instruction_sets, versions


class Cache(Protocol):
    """Where arrays are kept; what is put there may be gone again."""

    def get(self, key: str) -> dict[str, Array] | None:
        """The arrays kept under `key`; None when there are none."""
        ...

    def put(self, key: str, arrays: Mapping[str, Array]) -> None:
        """Keep `arrays` under `key`."""
        ...


def key_of(kind: str, **content: Any) -> str:
    """The key of a result of this `kind`, 64 hexadecimal digits: of its `content`, JSON-ready, and of what computes it.

    The instruction sets are part of it: other kernels round in other places.
    """
    return hashlib.sha256(json.dumps([kind, content, _computing()], sort_keys=True).encode()).hexdigest()


@cache
def _computing() -> list[Any]:
    """What computes: it does not change while a process lives."""
    return [versions(), instruction_sets()]
