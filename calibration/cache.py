"""A cache of measured arrays: each is kept under a hash of everything that its values depend on."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.machine import instruction_sets, versions

NAMES = "names"


class Cache(Protocol):
    """A store of arrays by key. It may lose what was put: `get` then answers None, and the caller measures again."""

    def get(self, key: str) -> dict[str, Array] | None:
        """The arrays kept under `key`; None when there are none."""
        ...

    def put(self, key: str, arrays: Mapping[str, Array]) -> None:
        """Keep `arrays` under `key`."""
        ...


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` to an npz file; names are any text. Raises TypeError for a dtype that npz would not give back."""
    for name, array in arrays.items():
        if array.dtype.hasobject or array.dtype.kind == "V":
            raise TypeError(f"{name}: arrays of {array.dtype} cannot be kept")
    numbered = {str(number): array for number, array in enumerate(arrays.values())}
    np.savez(path, **{NAMES: np.array(json.dumps(list(arrays)))}, **numbered)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, Array] | None:
    """What `write_arrays` wrote to `path`; None when nothing is there, or what is there is damaged."""
    try:
        with np.load(path, allow_pickle=False) as entry:
            names = json.loads(str(entry[NAMES]))
            return {name: entry[str(number)] for number, name in enumerate(names)}
    except Exception:  # no such file, or whatever a damaged one makes its readers raise
        return None


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
