"""The folder in which a job keeps the state of long work, so that the same command goes on after an interrupt."""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.cache import read_arrays, write_arrays
from onnxslim_bert.errors import OutputError
from onnxslim_bert.graph.naming import KEPT

OURS = re.compile(r"[0-9a-f]{64}(\.part)?\.npz")


class UnfinishedFolder:
    """A `Cache` in the files KEY.npz of a folder, which is made when there is something to keep.

    Only files of such names are ever read or deleted. Raises OutputError when the folder cannot be made or holds
    something else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> dict[str, Array] | None:
        """The arrays kept under `key`; None when there are none, or what is there is damaged."""
        return read_arrays(self.folder / f"{key}.npz")

    def put(self, key: str, arrays: Mapping[str, Array]) -> None:
        """Keep `arrays` under `key`, in place of what was there; an interrupt leaves the one or the other."""
        self._make()
        KEPT.append(self.folder)
        part = self.folder / f"{key}.part.npz"
        try:
            write_arrays(part, arrays)
            os.replace(part, self.folder / f"{key}.npz")
        except OSError as error:
            raise OutputError(f"{part}: cannot be written ({error.strerror}); free some space") from error

    def remove(self) -> None:
        """Delete what was kept, and the folder when nothing else lies in it."""
        if self.folder.is_symlink():
            return
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if OURS.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _make(self) -> None:
        with contextlib.suppress(FileExistsError):
            try:
                self.folder.mkdir()
            except FileExistsError:
                raise
            except OSError as error:
                raise OutputError(f"{self.folder}: cannot be made ({error.strerror}); give another output") from error
        is_ours = self.folder.is_dir() and not self.folder.is_symlink()
        if not is_ours or any(not OURS.fullmatch(path.name) for path in self.folder.iterdir()):
            raise OutputError(
                f"{self.folder} is in the way: unfinished work is kept there; move it or give another output"
            )
