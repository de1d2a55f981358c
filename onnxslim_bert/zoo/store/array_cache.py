"""Arrays that are kept in a storage, for processes of one run and of later ones."""

from collections.abc import Mapping

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.cache import read_arrays, write_arrays
from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.zoo.store.storage import Storage


class ArrayCache:
    """A `Cache` in the files cache/KEY.npz of a storage. The keys are content addresses: an entry never changes."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def get(self, key: str) -> dict[str, Array] | None:
        """The arrays kept under `key`, as they were; None when there are none, or what is there is damaged."""
        name = cache_name(key)
        if (path := self.storage.local(name)) is not None:
            return read_arrays(path)
        if not self.storage.exists(name):
            return None
        with scratch() as folder:
            self.storage.fetch(name, folder / "entry.npz")
            return read_arrays(folder / "entry.npz")

    def put(self, key: str, arrays: Mapping[str, Array]) -> None:
        """Keep `arrays` under `key`; names are any text. Raises TypeError for a dtype that npz would not give back."""
        with self.storage.workspace() as folder:
            path = folder / "entry.npz"
            write_arrays(path, arrays)
            self.storage.put(cache_name(key), path, move=True)


def cache_name(key: str) -> str:
    """Where the arrays of `key` are."""
    return f"cache/{key}.npz"
