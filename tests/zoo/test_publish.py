"""Artefacts get names that people read; what was there before and is no more goes."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from zoo_documents import KEY, result

from onnxslim_bert.errors import OutputError
from onnxslim_bert.zoo.publish import _link, check_replaceable, publish
from onnxslim_bert.zoo.records import Row, Run
from onnxslim_bert.zoo.store.storage import Storage


def row(name: str = "int8", **files: str) -> Row:
    """A row whose artefact has these files."""
    made = result(files=dict.fromkeys(files, "00"), model=next(iter(files)))
    return Row(KEY, "bert", name, "cpu", "quantize", "done", result=made)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of a run with two files in objects/."""
    for name in ("model.onnx", "model/model.32.onnx", "model/model.data"):
        path = tmp_path / "objects" / KEY / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_one_file_is_a_link_under_the_name_of_its_recipe_and_target(out):
    run = publish(Run("zoo.toml", (), (row(**{"model.onnx": ""}),)), out, Storage(out))
    path = out / run.rows[0].path
    assert run.rows[0].path == "models/bert/int8.cpu.onnx"
    assert path.samefile(out / "objects" / KEY / "model.onnx")
    assert not os.access(path, os.W_OK) or os.geteuid() == 0
    assert path.stat().st_mode & 0o222 == 0, "a change would be one of objects/"


def test_several_files_are_a_folder(out):
    several = row(**{"model/model.32.onnx": "", "model/model.data": ""})
    run = publish(Run("zoo.toml", (), (several,)), out, Storage(out))
    assert run.rows[0].path == "models/bert/int8.cpu/model/model.32.onnx"
    assert (out / "models/bert/int8.cpu/model/model.data").read_text() == "model/model.data"


def test_what_is_no_more_in_the_run_goes(out):
    old, new = (Run("zoo.toml", (), (row(name, **{"model.onnx": ""}),)) for name in ("old", "new"))
    publish(old, out, Storage(out))
    publish(new, out, Storage(out))
    assert [path.name for path in (out / "models/bert").iterdir()] == ["new.cpu.onnx"]
    assert sorted(path.name for path in out.iterdir()) == ["models", "objects"], "nothing temporary is left"


def test_files_of_others_stay(out):
    """Next to results, in a folder of their own, a link; not what the last run wrote as a copy."""
    publish(Run("zoo.toml", (), (row("old", **{"model.onnx": ""}),)), out, Storage(out))
    models = out / "models"
    (models / "bert/notes.txt").write_text("mine")
    (models / "mine").mkdir()
    (models / "mine/best.onnx").write_text("mine")
    (models / "latest").symlink_to("bert/new.cpu.onnx")
    shutil.copyfile(out / "objects" / KEY / "model.onnx", models / "bert/copy.cpu.onnx")
    (out / "run.json").write_text('{"rows": [{"model": "bert", "recipe": "copy", "target": "cpu"}]}')
    publish(Run("zoo.toml", (), (row("new", **{"model.onnx": ""}),)), out, Storage(out))
    left = sorted(path.relative_to(models).as_posix() for path in models.rglob("*") if not path.is_dir())
    assert left == ["bert/new.cpu.onnx", "bert/notes.txt", "latest", "mine/best.onnx"]
    assert (models / "latest").is_symlink()


def test_what_waits_keeps_the_file_of_its_name(out):
    """Of a run that was interrupted; its row has no path, as the file is of before."""
    several = row("lengths", **{"model/model.32.onnx": "", "model/model.data": ""})
    publish(
        Run("zoo.toml", (), (row(**{"model.onnx": ""}), several, row("old", **{"model.onnx": ""}))), out, Storage(out)
    )
    waiting = tuple(replace(found, status="waiting", result=None) for found in (row(**{"model.onnx": ""}), several))
    run = publish(Run("zoo.toml", (), waiting), out, Storage(out))
    assert [found.path for found in run.rows] == ["", ""]
    assert sorted(path.relative_to(out / "models/bert").as_posix() for path in (out / "models/bert").rglob("*.*")) == [
        "int8.cpu.onnx",
        "lengths.cpu",
        "lengths.cpu/model/model.32.onnx",
        "lengths.cpu/model/model.data",
    ]


def test_no_copy_is_written_through_a_link(out, monkeypatch):
    """Into objects/, under another key."""
    other = out / "objects" / ("1" * 64) / "model.onnx"
    other.parent.mkdir(parents=True)
    other.write_text("another")
    target = out / "models" / "bert.onnx"
    target.parent.mkdir()
    os.link(other, target)
    _link(out / "objects" / KEY / "model.onnx", target)
    assert (target.read_text(), other.read_text()) == ("model.onnx", "another")


def test_what_cannot_be_laid_out_says_where_it_is(out, monkeypatch):
    """And leaves nothing of it, which would take the room of run.json."""

    def full(_: object, target: Path) -> None:
        target.write_text("half")
        raise OSError(28, "No space left on device")

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(
        OutputError, match=r"models: cannot be laid out \(No space left on device\); the artefacts are in"
    ):
        publish(Run("zoo.toml", (), (row(**{"model.onnx": ""}),)), out, Storage(out))
    assert not list(out.glob(".models*"))


def test_a_run_that_was_killed_between_two_renames_is_mended(out):
    """What was there is still what waits keeps."""
    publish(Run("zoo.toml", (), (row(**{"model.onnx": ""}),)), out, Storage(out))
    (out / "models").rename(out / ".models-old")
    waiting = replace(row(**{"model.onnx": ""}), status="waiting", result=None)
    publish(Run("zoo.toml", (), (waiting,)), out, Storage(out))
    assert (out / "models/bert/int8.cpu.onnx").is_file()
    assert not (out / ".models-old").exists()


def test_files_of_somebody_else_get_copies(out, monkeypatch):
    """Their rights cannot be changed."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    run = publish(Run("zoo.toml", (), (row(**{"model.onnx": ""}),)), out, Storage(out))
    assert not (out / run.rows[0].path).samefile(out / "objects" / KEY / "model.onnx")


def test_rows_without_an_artefact_have_no_path(out):
    failed = replace(row(**{"model.onnx": ""}), status="failed", result=None)
    run = publish(Run("zoo.toml", (), (failed,)), out, Storage(out))
    assert run.rows[0].path == ""
    assert list((out / "models").iterdir()) == []


def test_artefacts_elsewhere_stay_there(tmp_path):
    storage = Storage("memory://zoo-publish")
    storage.write(f"objects/{KEY}/model.onnx", b"x")
    run = publish(Run("zoo.toml", (), (row(**{"model.onnx": ""}),)), tmp_path, storage)
    assert run.rows[0].path == f"objects/{KEY}/model.onnx"


def test_file_systems_without_links_get_copies(out, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    run = publish(Run("zoo.toml", (), (row(**{"model.onnx": ""}),)), out, Storage(out))
    path = out / run.rows[0].path
    assert path.read_text() == "model.onnx"
    assert not path.samefile(out / "objects" / KEY / "model.onnx")


def test_a_folder_of_models_that_is_not_ours_is_not_replaced(tmp_path):
    """It would be deleted."""
    check_replaceable(tmp_path)
    check_replaceable(tmp_path / "new")
    (tmp_path / "models").mkdir()
    with pytest.raises(OutputError, match=re.escape(f"{tmp_path}/models is no folder of `onnxslim zoo run`")):
        check_replaceable(tmp_path)
    (tmp_path / "zoo.sqlite").touch()
    check_replaceable(tmp_path)


def test_what_a_killed_run_left_goes(out):
    for left in (".models-new", ".models-old"):
        (out / left / "bert").mkdir(parents=True)
    publish(Run("zoo.toml", (), (row(**{"model.onnx": ""}),)), out, Storage(out))
    assert sorted(path.name for path in out.iterdir()) == ["models", "objects"]


@pytest.mark.skipif(os.name != "posix", reason="needs rights")
def test_who_may_read_the_run_may_read_its_models(out):
    path = out / "objects" / KEY / "model.onnx"
    path.chmod(0o640)
    publish(Run("zoo.toml", (), (row(**{"model.onnx": ""}),)), out, Storage(out))
    assert path.stat().st_mode & 0o777 == 0o440
    assert (out / "models").stat().st_mode == (out / "objects").stat().st_mode
