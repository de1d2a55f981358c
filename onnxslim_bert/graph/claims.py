"""A claim on the name of an output, held from the start of a job to its end.

A claim is a folder beside the output, with a file in it that the job holds locked (flock). The kernel lets go of the
lock when the process dies, however it dies. So a claim whose file is not locked was left by a killed job, and the next
job that writes into the same folder removes it.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from onnxslim_bert.errors import OutputError

try:
    import fcntl
except ImportError:  # no POSIX system: names are not claimed there
    fcntl = None  # type: ignore[assignment]

PREFIX = ".onnxslim-"
LOCK = "claim"
LONGEST = 100  # bytes of an output's name that its claim's name holds


@contextlib.contextmanager
def claimed(output: Path) -> Iterator[Path]:
    """Claim the name `output` while the block runs: yields a folder to work in beside it, which is removed in the end.

    Raises OutputError when another job has claimed the name, or the folder cannot be made. Where the system cannot lock
    files, the folder is there but nothing is claimed.
    """
    for other in output.parent.glob(f"{PREFIX}*"):
        _remove_dead(other)
    folder = output.parent / f"{PREFIX}{_short(output.name)}"
    with contextlib.ExitStack() as stack:
        try:
            lock = _locked(folder)
            if lock is None:
                folder = Path(tempfile.mkdtemp(dir=output.parent, prefix=PREFIX))
        except BlockingIOError as error:
            raise OutputError(
                f"{output}: another run is writing it; wait for its end or give another output"
            ) from error
        except OSError as error:
            raise OutputError(f"{output}: cannot be written ({error.strerror}); give another output") from error
        if lock is not None:
            stack.callback(lock.close)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def _locked(folder: Path) -> IO[bytes] | None:
    """The locked file in `folder`, which is made or was left by a job that is dead; None where files cannot be locked.

    Raises BlockingIOError when a living job has it.
    """
    if fcntl is None:
        return None
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context((folder / LOCK).open("ab"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_ino != (folder / LOCK).stat().st_ino:
                    continue
            except FileNotFoundError:  # a job ended between two of these lines
                continue
            except BlockingIOError:
                raise
            except OSError:
                return None
            stack.pop_all()
            for path in folder.iterdir():
                if path.name != LOCK:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            return file


def _remove_dead(folder: Path) -> None:
    """Remove the folder of a claim whose job is dead; nothing that is no claim."""
    if fcntl is None or folder.is_symlink():
        return
    with contextlib.suppress(OSError), (folder / LOCK).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _short(name: str) -> str:
    """The name, or a hash of one that would be too long with a prefix."""
    return name if len(os.fsencode(name)) <= LONGEST else hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
