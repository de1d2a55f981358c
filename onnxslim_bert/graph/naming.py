"""Finished files get their names: all of them or none, and never in place of a file unasked.

While files are moved, a journal beside them says which go where. When the process is killed meanwhile, the next job in
that place reads it and takes back what was moved (`take_back`), so that no new report stands beside an old model.
"""

import contextlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxslim_bert.errors import OutputError
from onnxslim_bert.graph.held_signals import no_signals

JOURNAL = "names.json"
NAMED: list[Path] = []  # what this process has written so far, in the order in which it got its names
KEPT: list[Path] = []  # folders of work that this process has not ended: the same command goes on from what they hold


@dataclass(frozen=True)
class _Move:
    """One file or folder on its way to its name.

    file: its name in the folder where it was made. name: where it goes. kept: the name, beside `file`, under which what
    it replaces stays until all are moved; "" where nothing is replaced. identity: by which the moved file is known.
    """

    file: Path
    name: Path
    kept: str
    identity: tuple[int, int, int]

    def do(self) -> None:
        """Move it. Raises FileExistsError for a name that was free and no longer is, and other OSErrors."""
        if not self.kept:
            link_new(self.file, self.name)
        elif self.file.is_dir():
            self.name.rename(self.file.with_name(self.kept))
            self.file.rename(self.name)
        else:
            os.chmod(self.file, stat.S_IMODE(self.name.stat().st_mode))
            with contextlib.suppress(OSError):  # a file system without hard links takes nothing back
                os.link(self.name, self.file.with_name(self.kept))
            os.replace(self.file, self.name)

    def undo(self) -> bool:
        """Take it back as far as it got; False when what was replaced cannot have its name, as others took it since."""
        moved, kept = self._is_moved(), self.file.with_name(self.kept) if self.kept else None
        if kept is None:
            if moved and self.name.is_dir():
                self.name.rename(self.file)
            elif moved:
                self.name.unlink()
        elif kept.is_dir():
            if moved:
                self.name.rename(self.file)
            if os.path.lexists(self.name):
                return False
            kept.rename(self.name)
        elif kept.exists() and (moved or not os.path.lexists(self.name)):
            os.replace(kept, self.name)
        return True

    def _is_moved(self) -> bool:
        with contextlib.suppress(OSError):
            return _identity(self.name) == self.identity
        return False


def give_names(
    made: Sequence[tuple[Path, Path]], *, overwrite: bool, sources: Sequence[Path] = (), claim: Path | None = None
) -> None:
    """Move finished files and folders to their names as one step: when one move fails, those before it are taken back.

    made: (file, name) pairs on one file system, the files in the folder of a claim (`claims.py`); the file that readers
    wait for comes last. claim: that folder; by default the one in which the first file is.
    overwrite: what has the name already is replaced, and the permissions of a file stay; where the name is a link, the
    file that it leads to is replaced. Without it, whatever lies under a name, even a link to nothing, is an
    OutputError. sources: who may not read one of them may not read a file that is new, either.
    Example: model.onnx is moved, model.json cannot be: model.onnx is what it was before. Signals wait until all is
    done. Raises OutputError. On a file system without hard links, a file that was replaced cannot be brought back.
    """
    folder = claim or made[0][0].parent
    with no_signals():
        moves: list[_Move] = []
        at = 0
        try:
            for at, (file, name) in enumerate(made):
                moves.append(_planned(file, name, f"replaced.{at}", overwrite))
                _hide(file, sources)
            _write_journal(folder, moves)
            for at in range(len(moves)):
                moves[at].do()
        except OSError as error:
            for move in reversed(moves):
                move.undo()
            (folder / JOURNAL).unlink(missing_ok=True)
            name = made[at][1]
            if isinstance(error, FileExistsError):
                appeared = f"{name} has appeared meanwhile; nothing was replaced, give another output"
                raise OutputError(appeared) from error
            raise OutputError(f"{name}: cannot be written ({error.strerror}); nothing was changed") from error
        (folder / JOURNAL).unlink()
        NAMED.extend(name for _, name in made)


def take_back(folder: Path) -> bool:
    """Undo the moves that a killed process had begun in its claimed `folder`; nothing to do where there were none.

    Only names beside and below the place of `folder` are touched, and there only what that process put. Returns False
    when something that it replaced is still in `folder`, since others have taken its name.
    """
    try:
        moves = [_read_move(folder, entry) for entry in json.loads((folder / JOURNAL).read_bytes())]
    except (OSError, ValueError, TypeError, KeyError):  # none, or one that was being written: nothing was moved yet
        return True
    try:
        done = [move.undo() for move in reversed(moves)]
    except OSError:
        return False
    (folder / JOURNAL).unlink()
    return all(done)


def link_new(file: Path, name: Path) -> None:
    """Move a file or folder to `name`, which must not exist. Raises FileExistsError."""
    if file.is_dir():
        if os.path.lexists(name):
            raise FileExistsError
        file.rename(name)  # fails on all that may appear meanwhile but an empty folder
        return
    try:
        os.link(file, name)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: take the name first, then fill it
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            os.replace(file, name)
        except OSError:
            os.unlink(name)
            raise
    else:
        os.unlink(file)


def _planned(file: Path, name: Path, kept: str, overwrite: bool) -> _Move:
    target = Path(os.path.realpath(name)) if overwrite and name.is_symlink() else name
    if overwrite and target.exists() and target.is_dir() != file.is_dir():
        raise IsADirectoryError(0, "a folder and a file do not replace each other")
    return _Move(file, target, kept if overwrite and target.exists() else "", _identity(file))


def _hide(made: Path, sources: Sequence[Path]) -> None:
    """Take the rights on a file, or a folder and all in it, from group or others, if they lack them on `sources`."""
    modes = [source.stat().st_mode for source in sources]
    readers = ((stat.S_IRGRP, stat.S_IRWXG), (stat.S_IROTH, stat.S_IRWXO))
    hidden = sum(rights for read, rights in readers if not all(mode & read for mode in modes))
    for path in [made, *made.rglob("*")] if hidden else ():
        os.chmod(path, stat.S_IMODE(path.stat().st_mode) & ~hidden)


def _identity(path: Path) -> tuple[int, int, int]:
    """What tells a file from any other that may have its name later; renaming does not change it."""
    state = path.lstat()
    return (state.st_ino, state.st_mtime_ns, state.st_size) if stat.S_ISREG(state.st_mode) else (state.st_ino, 0, 0)


def _write_journal(folder: Path, moves: Sequence[_Move]) -> None:
    here = folder.resolve()
    entries = []
    for move in moves:
        with contextlib.suppress(ValueError):  # a link led elsewhere, from where nothing is taken back
            name = (move.name.parent.resolve() / move.name.name).relative_to(here.parent)
            file = (move.file.parent.resolve() / move.file.name).relative_to(here)
            entries.append(asdict(move) | {"file": file.as_posix(), "name": name.as_posix()})
    with (folder / JOURNAL).open("w") as journal:
        json.dump(entries, journal)
        journal.flush()
        os.fsync(journal.fileno())


def _read_move(folder: Path, entry: dict[str, Any]) -> _Move:
    """A move of the journal. It leads nowhere else: a journal may have come with somebody's archive."""
    file, name = folder / entry["file"], folder.parent / entry["name"]
    inside = [
        path.parent.resolve().is_relative_to(place.resolve()) for path, place in ((file, folder), (name, folder.parent))
    ]
    if not all(inside) or {file.name, name.name} & {"", ".."} or Path(entry["kept"]).name != entry["kept"]:
        raise ValueError(f"{folder / JOURNAL} names other folders")
    inode, mtime, size = entry["identity"]
    return _Move(file, name, entry["kept"], (inode, mtime, size))
