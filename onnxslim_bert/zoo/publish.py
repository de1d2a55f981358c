"""The artefacts of a run under names that people read: models/MODEL/RECIPE.TARGET.onnx."""

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
    """Lay out the folder `models` anew, as a whole, and say in each row where its artefact is.

    The files are those of objects/, linked where the file system can, so that they take no room twice; they are
    read-only for that. Artefacts in a storage elsewhere stay there, and their path is where.
    """
    fresh, old = (out / f".{MODELS}-{age}" for age in ("new", "old"))
    for left in (fresh, old):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    fresh.mkdir()
    rows = tuple(_lay_out(row, fresh, storage) for row in run.rows)
    if (out / MODELS).exists():
        (out / MODELS).rename(old)
    fresh.rename(out / MODELS)
    shutil.rmtree(old, ignore_errors=True)
    return replace(run, rows=rows)


def _lay_out(row: Row, models: Path, storage: Storage) -> Row:
    if row.result is None:
        return row
    artefact = f"objects/{row.key}/{row.result.model}"
    if storage.local(artefact) is None:
        return replace(row, path=artefact)
    name = f"{row.model}/{row.recipe}.{row.target}"
    alone = len(row.result.files) == 1
    for file in row.result.files:
        source = storage.local(f"objects/{row.key}/{file}")
        assert source is not None
        _link(source, models / (f"{name}.onnx" if alone else f"{name}/{file}"))
    return replace(row, path=f"{MODELS}/{name}.onnx" if alone else f"{MODELS}/{name}/{row.result.model}")


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.chmod(source.stat().st_mode & ~WRITE)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
