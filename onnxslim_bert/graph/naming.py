"""Finished files get their names: all of them or none, and never in place of a file unasked."""

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from onnxslim_bert.errors import OutputError


def give_names(made: Sequence[tuple[Path, Path]], *, overwrite: bool) -> None:
    """Move finished files to their names as one step: when one move fails, those before it are taken back.

    made: (file, name) pairs on one file system; the file that readers wait for comes last.
    overwrite: a file that has the name already is replaced and its permissions stay; where the name is a link, the file
    that it leads to is replaced. Without it, whatever lies under a name, even a link to nothing, is an OutputError.
    Example: model.onnx is moved, model.json cannot be: model.onnx is what it was before.
    Raises OutputError. On a file system without hard links, a file that was replaced cannot be brought back.
    """
    undo = contextlib.ExitStack()
    with undo:
        for number, (file, name) in enumerate(made):
            try:
                target = Path(os.path.realpath(name)) if overwrite and name.is_symlink() else name
                if overwrite and target.exists():
                    kept = file.with_name(f"replaced.{number}")
                    os.chmod(file, stat.S_IMODE(target.stat().st_mode))
                    with contextlib.suppress(OSError):  # a file system without hard links takes nothing back
                        os.link(target, kept)
                        undo.callback(os.replace, kept, target)
                    os.replace(file, target)
                elif overwrite:
                    os.replace(file, target)
                    undo.callback(os.unlink, target)
                else:
                    link_new(file, target)
                    undo.callback(os.unlink, target)
            except FileExistsError as error:
                raise OutputError(
                    f"{name} has appeared meanwhile; nothing was replaced, give another output"
                ) from error
            except OSError as error:
                raise OutputError(f"{name}: cannot be written ({error.strerror}); nothing was changed") from error
        undo.pop_all()


def link_new(file: Path, name: Path) -> None:
    """Move `file` to `name`, which must not exist. Raises FileExistsError."""
    try:
        os.link(file, name)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: take the name first, then fill it
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        os.replace(file, name)
    else:
        os.unlink(file)
