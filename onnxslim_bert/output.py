"""Files are written whole or not at all, and never over an input unasked."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from onnxslim_bert.errors import OutputError


def check_output(path: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Raise OutputError when `path` is one of `inputs`, exists unasked, or lies in no folder that can be written."""
    if path.exists():
        if any(path.samefile(source) for source in inputs if source.exists()):
            raise OutputError(f"{path} is an input; give another output")
        if not path.is_file():
            raise OutputError(f"{path} is no regular file; give another output")
        if not overwrite:
            raise OutputError(f"{path} exists; give another output or --force to overwrite it")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: the folder {path.parent} cannot be written; give another output")


@contextlib.contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A folder beside `output`, gone in the end, for what is to be checked before it gets its name.

    An OutputError on a file in it names the file beside `output` that it was to become.
    """
    try:
        folder = tempfile.mkdtemp(dir=output.parent, prefix=".onnxslim-")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror}); give another output") from error
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            yield Path(folder)
        except OutputError as error:
            raise OutputError(str(error).replace(folder, str(output.parent))) from error


def write_atomically(path: Path, pieces: Iterable[bytes | memoryview], *, overwrite: bool) -> None:
    """Write `pieces` to `path` so that a reader sees all of it or none; an interrupt leaves no partial file."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; give another output or --force to overwrite it")
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); nothing was changed") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
