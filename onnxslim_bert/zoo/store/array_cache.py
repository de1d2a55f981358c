"""Arrays that are kept in a storage, for processes of one run and of later ones."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.zoo.store.storage import Storage

NAMES = "names"


class ArrayCache:
    """A `Cache` in the files cache/KEY.npz of a storage. The keys are content addresses: an entry never changes."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def get(self, key: str) -> dict[str, Array] | None:
        """The arrays kept under `key`, as they were; None when there are none, or what is there is damaged."""
        name = cache_name(key)
        if (path := self.storage.local(name)) is not None:
            return _read(path)
        if not self.storage.exists(name):
            return None
        with scratch() as folder:
            self.storage.fetch(name, folder / "entry.npz")
            return _read(folder / "entry.npz")

    def put(self, key: str, arrays: Mapping[str, Array]) -> None:
        """Keep `arrays` under `key`; names are any text. Raises TypeError for a dtype that npz would not give back."""
        for name, array in arrays.items():
            if array.dtype.hasobject or array.dtype.kind == "V":
                raise TypeError(f"{name}: arrays of {array.dtype} cannot be kept")
        numbered = {str(number): array for number, array in enumerate(arrays.values())}
        with self.storage.workspace() as folder:
            path = folder / "entry.npz"
            np.savez(path, **{NAMES: np.array(json.dumps(list(arrays)))}, **numbered)  # type: ignore[arg-type]
            self.storage.put(cache_name(key), path, move=True)


def cache_name(key: str) -> str:
    """Where the arrays of `key` are."""
    return f"cache/{key}.npz"


def _read(path: Path) -> dict[str, Array] | None:
    try:
        with np.load(path, allow_pickle=False) as entry:
            names = json.loads(str(entry[NAMES]))
            return {name: entry[str(number)] for number, name in enumerate(names)}
    except Exception:  # no such file, or whatever a damaged one makes its readers raise
        return None
