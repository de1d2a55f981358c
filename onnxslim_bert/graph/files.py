"""Files are written whole or not at all, and never over an input unasked."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from onnxslim_bert.errors import ModelError, OutputError
from onnxslim_bert.graph.claims import NO_ROOM, claimed
from onnxslim_bert.graph.naming import give_names
from onnxslim_bert.graph.wire import read_skeleton

CHUNK = 1 << 20


def check_output(path: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Raise OutputError when `path` is one of `inputs`, exists unasked, or lies in no folder that can be written."""
    if path.is_symlink() and not path.exists() and not overwrite:
        raise OutputError(f"{path} is a link to nothing; give another output or --force to write what it leads to")
    real = Path(os.path.realpath(path)) if path.is_symlink() else path
    if path.exists():
        if any(path.samefile(source) for source in inputs if source.exists()):
            raise OutputError(f"{path} is an input; give another output")
        if not path.is_file():
            raise OutputError(f"{path} is no regular file; give another output")
        if not overwrite:
            raise OutputError(f"{path} exists; give another output or --force to overwrite it")
    for folder in {path.parent, real.parent}:
        if not folder.is_dir():
            raise OutputError(f"{path}: no folder {folder}; make it first")
        if not os.access(folder, os.W_OK):
            raise OutputError(f"{path}: the folder {folder} cannot be written; give another output")
    if real.parent.stat().st_dev != path.parent.stat().st_dev:
        raise OutputError(f"{path} is a link into another file system; give {real} as the output")


@contextlib.contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A folder beside `output` in which files are made and checked before they get their names; removed in the end.

    It claims the output: a second job on it is refused (`claims.py`). An OutputError about a file in it is worded as if
    the file lay beside `output` already, where the user knows it. Raises OutputError when the block runs out of room.
    """
    with claimed(output) as folder:
        try:
            yield folder
        except OutputError as error:
            raise OutputError(str(error).replace(str(folder), str(output.parent))) from error
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise OutputError(f"{output}: cannot be written ({error.strerror}); nothing was changed") from error


def write_atomically(path: Path, pieces: Iterable[bytes | memoryview], *, overwrite: bool) -> None:
    """Write `pieces` to `path` so that a reader sees all of it or none; an interrupt leaves no partial file.

    overwrite: replace a file that exists and keep its permissions; where `path` is a link, replace the file that it
    leads to. Raises OutputError.
    """
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} exists; give another output or --force to overwrite it")
    with staging(path) as folder:
        with (folder / path.name).open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        give_names([(folder / path.name, path)], overwrite=overwrite)


def model_bytes(path: Path) -> int:
    """Bytes of the file and of every external data file that its weights name."""
    return sum(file.stat().st_size for file in model_files(path))


def model_files(path: Path) -> list[Path]:
    """The file and every external data file that its weights name. Raises ModelError when one is missing."""
    named, _ = _outline(path, _state(path))
    missing = [name for name in named if not (path.parent / name).is_file()]
    if missing:
        raise ModelError(f"{path} keeps weights in {missing[0]}, which is not beside it")
    return [path, *(path.parent / name for name in named)]


def model_nodes(path: Path) -> int:
    """Nodes of the file's graph, without those of subgraphs and functions."""
    return _outline(path, _state(path))[1]


def _state(path: Path) -> tuple[int, ...] | None:
    stat = path.stat() if path.is_file() else None
    return stat and (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _outline(path: Path, state: tuple[int, ...] | None) -> tuple[tuple[str, ...], int]:
    """The names of external data files, and how many nodes there are; once for each state of the file, as many ask."""
    skeleton, _ = read_skeleton(path)
    entries = [entry for weight in skeleton.graph.initializer for entry in weight.external_data]
    return tuple(sorted({entry.value for entry in entries if entry.key == "location"})), len(skeleton.graph.node)


def file_sha256(*paths: Path) -> str:
    """The sha256 of the files' bytes, one after the other, hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
