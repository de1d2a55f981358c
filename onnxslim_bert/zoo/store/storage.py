"""Where results and what is cached are kept: a folder, or whatever else fsspec opens."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from fsspec.implementations.local import LocalFileSystem

from onnxslim_bert.errors import DataError, SlimError, StorageError
from onnxslim_bert.zoo.store.file_systems import file_system, reason, shows_puts_whole
from onnxslim_bert.zoo.store.workspaces import workspace

WORKSPACES = "tmp"  # in a folder, what is not finished: on the same file system, to be renamed into place


class Storage:
    """Files by name below one URL.

    A name is relative, with "/" between its parts, none of which starts with a dot. A file appears under its name
    complete or not at all. Every method raises DataError for what is no name, and StorageError, naming the URL, where
    the file system fails.
    url: the path of a folder, or a URL that fsspec opens ("s3://bucket/zoo").
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url).rstrip("/")
        self._files, self._root = file_system(str(url))

    @property
    def folder(self) -> Path | None:
        """The folder that this is; None when it lies elsewhere."""
        return Path(self._root) if isinstance(self._files, LocalFileSystem) else None

    def local(self, name: str) -> Path | None:
        """Where the file is or would be when this is a folder; None when it lies elsewhere."""
        return Path(self._at(name)) if self.folder else None

    def check_writable(self) -> None:
        """Raise StorageError where nothing can be written."""
        probe = f"{WORKSPACES}/{secrets.token_hex(8)}"
        self.write(probe, b"")
        self.delete(probe)

    def read(self, name: str) -> bytes | None:
        """The content; None when there is no such file."""
        with self._said(name, "read"):
            try:
                return cast(bytes, self._files.cat_file(self._at(name)))
            except (FileNotFoundError, IsADirectoryError):
                return None

    def exists(self, name: str) -> bool:
        """Whether there is a file, or a folder, of this name."""
        with self._said(name, "read"):
            self._files.invalidate_cache()
            return bool(self._files.exists(self._at(name)))

    def names(self, prefix: str) -> list[str]:
        """The files below the folder `prefix`, sorted; none when there is no such folder."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of every file below the folder `prefix`, by name."""
        with self._said(prefix, "listed"):
            self._files.invalidate_cache()
            found = cast(dict[str, dict[str, Any]], self._files.find(self._at(prefix), detail=True))
        named = {path.removeprefix(f"{self._root}/"): int(info["size"]) for path, info in found.items()}
        return {name: size for name, size in named.items() if "/." not in name}

    def modified(self, name: str) -> float:
        """When the file was written, in seconds since 1970."""
        with self._said(name, "read"):
            return float(self._files.modified(self._at(name)).timestamp())

    def write(self, name: str, data: bytes) -> None:
        """Give the file this content."""
        with self.workspace() as folder:
            with self._said(name, "written"):
                (folder / "data").write_bytes(data)
            self.put(name, folder / "data", move=True)

    def put(self, name: str, path: Path, *, move: bool = False) -> None:
        """Give the file the content of `path`. move: `path` may be gone then; it is renamed where that can be."""
        target = self._at(name)
        with self._said(name, "written"):
            if self.folder and move and not path.is_symlink():
                _place(path, Path(target))
            elif self.folder:
                with self.workspace() as folder:
                    _place(Path(shutil.copyfile(path, folder / "data")), Path(target))
            elif shows_puts_whole(self._files):
                self._files.put_file(str(path), target)
            else:
                parent = target.rpartition("/")[0]
                temporary = f"{parent}/.{secrets.token_hex(8)}"
                self._files.makedirs(parent, exist_ok=True)
                self._files.put_file(str(path), temporary)
                self._files.mv(temporary, target)

    def fetch(self, name: str, path: Path) -> None:
        """Copy the file to `path`. Raises StorageError when there is none."""
        with self._said(name, "read"):
            self._files.get_file(self._at(name), str(path))

    def delete(self, prefix: str) -> None:
        """Remove the file, or the folder with everything below it, if it is there."""
        with self._said(prefix, "deleted"), contextlib.suppress(FileNotFoundError):
            self._files.rm(self._at(prefix), recursive=True)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A temporary folder, gone in the end; where this is a folder, on its file system."""
        with contextlib.ExitStack() as stack:
            with self._said(WORKSPACES, "written"):
                parent = self.folder / WORKSPACES if self.folder else Path(tempfile.gettempdir())
                folder = stack.enter_context(workspace(parent))
            yield folder

    def _at(self, name: str) -> str:
        if not all(part and part[0] != "." and not set(part) & {"\\", ":", "\0"} for part in name.split("/")):
            raise DataError(f"{name!r} is no name for a file in {self.url}; no part may be empty or start with a dot")
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _said(self, name: str, verb: str) -> Iterator[None]:
        try:
            yield
        except SlimError:
            raise
        except Exception as error:  # every file system has errors of its own
            raise StorageError(f"{self.url}/{name}: cannot be {verb} ({reason(error)})") from error


def absolute(url: str) -> str:
    """A path as every process finds it; a URL as it is."""
    return url if "://" in url else str(Path(url).absolute())


def result_name(key: str) -> str:
    """Where a task's result is."""
    return f"objects/{key}/result.json"


def log_name(key: str) -> str:
    """Where the last output of a task is that crashed or was stopped."""
    return f"logs/{key}.txt"


def _place(path: Path, target: Path) -> None:
    with path.open("rb" if os.name == "posix" else "rb+") as file:
        os.fsync(file.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, target)
