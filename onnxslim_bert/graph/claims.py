"""A claim on the name of an output, held from the start of a job to its end, and temporary folders held the same way.

A claim is a folder beside the output, with a file in it that the job holds locked (flock). The kernel lets go of the
lock when the process dies, however it dies. So a claim whose file is not locked was left by a killed job, and the next
job that writes into the same folder removes it, after it has taken back what was half moved (`naming.take_back`).
"""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from onnxslim_bert.errors import OutputError
from onnxslim_bert.graph.held_signals import no_signals
from onnxslim_bert.graph.naming import take_back

try:
    import fcntl
except ImportError:  # no POSIX system: names are not claimed there
    fcntl = None  # type: ignore[assignment]

PREFIX = ".onnxslim-"
LOCK = "claim"
NO_ROOM = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EIO") if hasattr(errno, name)}
_held: list[Path] = []  # the claims and temporary folders of this process
LONGEST = 100  # bytes of an output's name that its claim's name holds


@contextlib.contextmanager
def claimed(output: Path) -> Iterator[Path]:
    """Claim the name `output` while the block runs: yields a folder to work in beside it, which is removed in the end.

    Where the name is a link, what it leads to is claimed. Raises OutputError when another job has claimed the name, or
    the folder cannot be made. Where the system cannot lock files, the folder is there but nothing is claimed.
    """
    real = Path(os.path.realpath(output)) if output.is_symlink() else output
    remove_dead(real.parent)
    folder = real.parent / f"{PREFIX}{_short(real.name)}"
    with contextlib.ExitStack() as stack:
        try:
            with no_signals():
                lock = _locked(folder)
                if lock is None:
                    folder = Path(tempfile.mkdtemp(dir=real.parent, prefix=PREFIX))
                stack.enter_context(_held_folder(folder, lock))
        except BlockingIOError as error:
            raise OutputError(
                f"{output}: another run is writing it; wait for its end or give another output"
            ) from error
        except OSError as error:
            raise OutputError(f"{output}: cannot be written ({error.strerror}); give another output") from error
        yield folder


@contextlib.contextmanager
def scratch(needed: int = 0) -> Iterator[Path]:
    """A new folder among the system's temporary files ($TMPDIR), gone in the end; those of killed processes go first.

    needed: bytes that the block is to write. Raises OutputError when there is less room, when the folder cannot be
    made, or when the block runs out of room.
    """
    with contextlib.ExitStack() as stack:
        try:
            parent = Path(tempfile.gettempdir())
            remove_dead(parent)
            free = shutil.disk_usage(parent).free
            if free < needed:
                found = f"{free / 1e6:.1f} MB free, and {needed / 1e6:.1f} MB are needed"
                raise OutputError(f"{parent}: no room for temporary files ({found}); set TMPDIR to another")
            with no_signals():
                folder, lock = _fresh(parent)
                stack.enter_context(_held_folder(folder, lock))
        except OSError as error:
            raise OutputError(f"no temporary folder can be made ({error.strerror}); set TMPDIR to another") from error
        try:
            yield folder
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise OutputError(
                f"{parent}: no room for temporary files ({error.strerror}); set TMPDIR to another"
            ) from error


@contextlib.contextmanager
def _held_folder(folder: Path, lock: IO[bytes] | None) -> Iterator[None]:
    """Know `folder` as ours, and remove it in the end as far as that can be; signals wait for that."""
    _held.append(folder)
    try:
        yield
    finally:
        with no_signals():
            with contextlib.suppress(OSError):
                _remove(folder)
            _held.remove(folder)
            if lock is not None:
                lock.close()


def remove_held() -> None:
    """Remove all that this process has claimed and still has, before it ends."""
    for folder in list(_held):
        with contextlib.suppress(OSError):
            _remove(folder)


def remove_dead(parent: Path) -> None:
    """Remove the claims in the folder `parent` whose jobs are dead, and take back what these had half moved.

    Only folders of this user that hold a claim, or nothing.
    """
    if fcntl is None:
        return
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            if not any(folder.iterdir()):
                folder.rmdir()
                continue
            with (folder / LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if take_back(folder):
                    _remove(folder)


def _fresh(parent: Path) -> tuple[Path, IO[bytes] | None]:
    """A new folder in `parent`, and its lock; one that another process took for dead before that is left to it."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=PREFIX))
        with contextlib.suppress(BlockingIOError, FileExistsError):
            return folder, _locked(folder)


def _locked(folder: Path) -> IO[bytes] | None:
    """The locked file in `folder`, which is made where there is none; None where files cannot be locked.

    Raises BlockingIOError when a living job has it, FileExistsError where something that is no claim has the name.
    """
    if fcntl is None:
        return None
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                if folder.is_symlink() or (any(folder.iterdir()) and not (folder / LOCK).exists()):
                    raise FileExistsError(0, f"{folder.name} is in the way")
                file = stack.enter_context((folder / LOCK).open("ab"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_ino != (folder / LOCK).stat().st_ino:
                    continue
            except FileNotFoundError:  # a job ended between two of these lines
                continue
            except (BlockingIOError, FileExistsError):
                raise
            except OSError:
                return None
            if [path.name for path in folder.iterdir()] != [
                LOCK
            ]:  # of another user, or with files that could not go back
                raise FileExistsError(0, f"{folder.name} is in the way, left by a killed job")
            stack.pop_all()
            return file


def _remove(folder: Path) -> None:
    """Remove a claim as far as that can be, its mark last, so that it is known as one until nothing else is in it."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == LOCK):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    folder.rmdir()


def _short(name: str) -> str:
    """The name, or a hash of one that would be too long with a prefix."""
    return name if len(os.fsencode(name)) <= LONGEST else hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
