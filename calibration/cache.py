"""A cache of measured arrays: each is kept under a hash of everything that its values depend on."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

from onnxslim_bert.arrays import Array
from onnxslim_bert.machine import instruction_sets, versions


class Cache(Protocol):
    """A store of arrays by key. It may lose what was put: `get` then answers None, and the caller measures again."""

    def get(self, key: str) -> dict[str, Array] | None:
        """The arrays kept under `key`; None when there are none."""
        ...

    def put(self, key: str, arrays: Mapping[str, Array]) -> None:
        """Keep `arrays` under `key`."""
        ...


def key_of(kind: str, **content: Any) -> str:
    """The cache key of a result: sha256 in 64 hexadecimal digits, over its `kind`, its `content` and this machine.

    content: everything that the result depends on, JSON-ready. Of the machine: software versions and the CPU's
    instruction sets, since other kernels round in other places.
    """
    return hashlib.sha256(json.dumps([kind, content, _computing()], sort_keys=True).encode()).hexdigest()


@cache
def _computing() -> list[Any]:
    """Software versions and instruction sets; both stay the same while a process lives."""
    return [versions(), instruction_sets()]
