"""The folder of a search: what it has measured and built so far, so that it goes on there when it is run again."""

import contextlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from onnxslim_bert.documents import read_object, structured
from onnxslim_bert.errors import DataError, OutputError
from onnxslim_bert.graph.claims import remove_dead
from onnxslim_bert.graph.files import staging, write_atomically
from onnxslim_bert.graph.naming import KEPT, give_names

FILE = "state.json"
MARK = {"key", "tables", "candidates"}  # what a state holds, by which it is told from another program's file
MODELS = r"full|int8|alternative|float-\d+|narrow-[\d.]+|[0-9a-f]{16}"  # names of models that a search writes
OURS = re.compile(rf"\.?(state\.json|({MODELS})\.onnx)(\.\w+)?")  # what it writes, and what an interrupt leaves of it
T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """A model that a search built by `recipe`, and wrote to `file`.

    predicted, damage: |difference| / |original| of its outputs on held-back rows, as predicted and as measured.
    drop: points of the task metric that it loses against the source; None before that is measured. source_ms, ms:
    milliseconds of the source and of it, in one run, where the drop is known: timed again, a search that goes on would
    aim elsewhere.
    """

    recipe: str
    file: Path
    nbytes: int
    predicted: float
    damage: float
    drop: float | None = None
    source_ms: float = 0.0
    ms: float = 0.0


class SearchFolder:
    """A folder with the measured tables and the built models of one search.

    key: a hash of everything that decides them. What lies there under another key is deleted. Every change is on disk
    when its method returns. Raises OutputError when the folder holds something else, or cannot be made.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self._file = folder / FILE
        if os.path.lexists(folder) and not self._is_mine():
            raise OutputError(f"{folder} is in the way: a search keeps its state there; move it or give another output")
        self._held = self._read()
        if self._held.get("key") != key:
            self.remove()
            self._held = {"key": key, "tables": {}, "candidates": {}}
        if folder.exists():
            self._write()
        else:
            self._make()
        KEPT.append(folder)

    def once(self, table: str, kind: type[T], measure: Callable[[], T]) -> T:
        """The table called `table`, of type `kind`: as it was kept, or, where it was not, from `measure`, and kept."""
        tables = self._held["tables"]
        with contextlib.suppress(DataError):
            if table in tables:
                return structured(kind, tables[table])
        measured = measure()
        tables[table] = json.loads(json.dumps(measured, default=_plain))
        self._write()
        return measured

    def candidate(self, recipe: str) -> Candidate | None:
        """The model that `recipe` made, if it was built."""
        held = self._held["candidates"].get(recipe)
        found = None if held is None else Candidate(**held | {"file": self.folder / held["file"]})
        return found if found is not None and found.file.exists() else None

    def keep_candidate(self, candidate: Candidate) -> None:
        """Remember a model whose file is in the folder."""
        self._held["candidates"][candidate.recipe] = asdict(candidate) | {"file": candidate.file.name}
        self._write()

    def remove(self) -> None:
        """Delete what a search writes, and the folder when nothing else lies in it."""
        found = [path for path in self.folder.iterdir() if self._is_ours(path)] if self.folder.is_dir() else []
        for path in sorted(found, key=lambda path: path.name == FILE):  # the mark last
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _is_mine(self) -> bool:
        """Whether the folder is that of a search: it has a state file, or what an interrupted first writing leaves."""
        if not self.folder.is_dir() or self.folder.is_symlink():
            return False
        remove_dead(self.folder)
        held, names = self._read(), [path.name for path in self.folder.iterdir()]
        if held:
            return held.keys() >= MARK
        begun = any(name.startswith((FILE, f".{FILE}")) for name in names)
        return begun and all(OURS.fullmatch(name) for name in names)

    def _is_ours(self, path: Path) -> bool:
        named = {held.get("file") for held in self._held.get("candidates", {}).values()}
        return path.is_file() and (path.name in named or OURS.fullmatch(path.name) is not None)

    def _make(self) -> None:
        """Make the folder with its state in it, so that it is known as a search's from the start."""
        if not self.folder.parent.is_dir():
            raise OutputError(f"{self.folder}: cannot be made (No such file or directory); give another output")
        with staging(self.folder) as beside:
            made = beside / self.folder.name
            made.mkdir(mode=0o700)  # the models in it are no more public than their source
            (made / FILE).write_text(json.dumps(self._held))
            give_names([(made, self.folder)], overwrite=False)

    def _write(self) -> None:
        write_atomically(self._file, [json.dumps(self._held).encode()], overwrite=True)

    def _read(self) -> dict[str, Any]:
        try:
            held = read_object(self._file)
        except DataError:
            return {}
        return held if all(isinstance(held.get(name, {}), dict) for name in MARK - {"key"}) else {}


def _plain(value: Any) -> Any:
    """What JSON can hold of an array or a dataclass."""
    return value.tolist() if isinstance(value, np.ndarray) else asdict(value)
