"""Paths as ONNX Runtime takes every one of them: a name on Linux need not be UTF-8, and then it takes its bytes."""

import os
from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.errors import SlimError


@dataclass(frozen=True)
class NativePath(os.PathLike[bytes]):
    """A path that `os.fspath` gives in bytes."""

    path: Path

    def __fspath__(self) -> bytes:
        return os.fsencode(self.path)


def native_path(path: Path) -> str | NativePath:
    """`path` as `onnxruntime.InferenceSession` takes it, for which plain bytes are a model."""
    return str(path) if is_utf8(path) else NativePath(path)


def native_name(path: Path) -> str | bytes:
    """`path` as the options of a session take it."""
    return str(path) if is_utf8(path) else os.fsencode(path)


def check_utf8(path: Path, library: str, kind: type[SlimError]) -> None:
    """Raise an error of this kind where the path is not UTF-8, for a `library` that takes no other names."""
    if not is_utf8(path):
        raise kind(f"{path}: its name, or a folder's, is not UTF-8, as {library} needs it: give another name")


def is_utf8(path: Path) -> bool:
    """Whether the path can be written down as text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
