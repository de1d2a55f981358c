"""The artefacts of a run under names that people read: models/MODEL/RECIPE.TARGET.onnx."""

import contextlib
import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

from onnxslim_bert.errors import OutputError
from onnxslim_bert.zoo.documents import RUN, STATE
from onnxslim_bert.zoo.records import Row, Run
from onnxslim_bert.zoo.store.storage import Storage

MODELS = "models"
WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def check_replaceable(out: Path) -> None:
    """Raise OutputError when `out` holds a folder `models` that is no run's: `publish` would replace it."""
    models = out / MODELS
    if models.exists() and not any((out / name).exists() for name in (RUN, STATE)):
        raise OutputError(f"{models} is no folder of `onnxslim zoo run`, which would replace it; give another output")


def publish(run: Run, out: Path, storage: Storage) -> Run:
    """Replace the folder `models` of `out` by one with the results of `run`; returns the run with the path of each.

    The files are hard links to those in objects/ where the file system has links, so that they take no room twice, and
    therefore read-only; else copies. Where results are stored elsewhere, they stay there and the paths point there. A
    job that still waits, in a run that was interrupted, keeps the file that was there under its name. Files that no run
    wrote stay, too, unless a result now has their name. Raises OutputError.
    """
    fresh, old = (out / f".{MODELS}-{age}" for age in ("new", "old"))
    if old.exists() and not (out / MODELS).exists():  # a run was killed between two renames
        old.rename(out / MODELS)
    for left in (fresh, old):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        fresh.mkdir()
        for row in run.rows:
            if row.result is None and row.status == "waiting":
                _keep(row, out / MODELS, fresh)
        rows = tuple(_lay_out(row, fresh, storage) for row in run.rows)
        for file in _of_others(out, storage):
            if not os.path.lexists(target := fresh / file.relative_to(out / MODELS)):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target, follow_symlinks=False)
        if (out / MODELS).exists():
            (out / MODELS).rename(old)
        fresh.rename(out / MODELS)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)  # copies that filled the disk, it may be
        if not isinstance(error, OSError):
            raise
        message = f"{out / MODELS}: cannot be laid out ({error.strerror}); the artefacts are in {storage.url}/objects"
        raise OutputError(message) from error
    shutil.rmtree(old, ignore_errors=True)
    return replace(run, rows=rows)


def _of_others(out: Path, storage: Storage) -> list[Path]:
    """Files in the folder `models` that no run wrote: no links to results, and not named like one of the last run."""
    found = [path for path in (out / MODELS).rglob("*") if path.is_symlink() or path.is_file()]
    objects = storage.folder.glob("objects/*/**/*") if storage.folder and found else ()
    results = {path.stat().st_ino for path in objects}
    rows: list[dict[str, str]] = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        rows = json.loads((out / RUN).read_bytes())["rows"]
    named = {out / MODELS / f"{row['model']}/{row['recipe']}.{row['target']}" for row in rows}
    return [
        path
        for path in found
        if path.lstat().st_ino not in results and not named & {path.with_suffix(""), *path.parents}
    ]


def _keep(row: Row, before: Path, models: Path) -> None:
    """Take over the file that an earlier run published under the name of `row`, whose job has not run yet."""
    name = name_of(row)
    files = [before / f"{name}.onnx", *(before / name).rglob("*")]
    for file in files:
        if file.is_file():
            _link(file, models / file.relative_to(before))


def name_of(row: Row) -> str:
    """How people find the artefact of `row`: MODEL/RECIPE.TARGET."""
    return f"{row.model}/{row.recipe}.{row.target}"


def _lay_out(row: Row, models: Path, storage: Storage) -> Row:
    if row.result is None:
        return row
    artefact = f"objects/{row.key}/{row.result.model}"
    if storage.local(artefact) is None:
        return replace(row, path=artefact)
    name = name_of(row)
    alone = len(row.result.files) == 1
    for file in row.result.files:
        source = storage.local(f"objects/{row.key}/{file}")
        assert source is not None
        _link(source, models / (f"{name}.onnx" if alone else f"{name}/{file}"))
    return replace(row, path=f"{MODELS}/{name}.onnx" if alone else f"{MODELS}/{name}/{row.result.model}")


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = source.stat().st_mode
    try:
        if mode & WRITE:
            source.chmod(mode & ~WRITE)
        os.link(source, target)
    except OSError:  # another file system, one without links, or another's file
        target.unlink(missing_ok=True)  # a link into objects/ would be written through
        shutil.copyfile(source, target)
