"""What a storage holds that no run needs any more."""

import re
import time
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import PurePosixPath

from onnxslim_bert.zoo.store.storage import WORKSPACES, Storage
from onnxslim_bert.zoo.store.workspaces import abandoned

DAY = 86400.0
KEY = re.compile(r"[0-9a-f]{64}")  # of a task, or of an entry of the cache; what is called otherwise is not ours


@dataclass(frozen=True)
class Garbage:
    """What can go. name: in the storage, a file or a folder. nbytes: of all its files. reason: why it can go."""

    name: str
    nbytes: int
    reason: str


def unreferenced(storage: Storage, keep: Set[str], *, cache_age: float = 30 * DAY) -> list[Garbage]:
    """What no run needs any more: results and logs of tasks, cached arrays, folders of killed processes.

    keep: keys of tasks and of cache entries that stay. cache_age: seconds for which other cache entries stay. To be
    called while the run's lock is held: what a run is writing looks like garbage.
    """
    results: dict[str, int] = {}
    for name, nbytes in storage.sizes("objects").items():
        folder = "/".join(name.split("/")[:2])
        results[folder] = results.get(folder, 0) + nbytes
    oldest = time.time() - cache_age
    return [
        *_others(results, keep, "of no task of the last run"),
        *_others(storage.sizes("logs"), keep, "of no task of the last run"),
        *(
            entry
            for entry in _others(storage.sizes("cache"), keep, f"older than {cache_age / DAY:g} days")
            if storage.modified(entry.name) < oldest
        ),
        *leftovers(storage),
    ]


def leftovers(storage: Storage) -> list[Garbage]:
    """The temporary folders of killed processes; those of processes that live are not among them."""
    if storage.folder is None:
        return []
    return [
        Garbage(
            f"{WORKSPACES}/{folder.name}",
            sum(storage.sizes(f"{WORKSPACES}/{folder.name}").values()),
            "left by a killed process",
        )
        for folder in abandoned(storage.folder / WORKSPACES)
    ]


def delete(storage: Storage, garbage: Iterable[Garbage]) -> int:
    """Remove it; the bytes that this frees."""
    freed = 0
    for item in garbage:
        storage.delete(item.name)
        freed += item.nbytes
    return freed


def _others(sizes: Mapping[str, int], keep: Set[str], reason: str) -> list[Garbage]:
    """Those of "FOLDER/KEY..." whose key is not in `keep`."""
    keys = {name: PurePosixPath(name).name.partition(".")[0] for name in sizes}
    return [
        Garbage(name, nbytes, reason)
        for name, nbytes in sizes.items()
        if KEY.fullmatch(keys[name]) and keys[name] not in keep
    ]
