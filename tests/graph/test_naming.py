"""Files get their names together or not at all, and never in place of what appeared meanwhile."""

import stat
from pathlib import Path

import pytest

from onnxslim_bert.errors import OutputError
from onnxslim_bert.graph.files import check_output, write_atomically
from onnxslim_bert.graph.naming import give_names


@pytest.fixture
def made(tmp_path: Path) -> list[tuple[Path, Path]]:
    """Three files in a folder, and the names beside it that they are to have."""
    folder = tmp_path / "made"
    folder.mkdir()
    for name in ("report.json", "weights", "model.onnx"):
        (folder / name).write_text(f"new {name}")
    return [
        (path, tmp_path / path.name) for path in (folder / "report.json", folder / "weights", folder / "model.onnx")
    ]


def test_all_get_their_names(tmp_path, made):
    give_names(made, overwrite=False)
    assert all(name.read_text() == f"new {name.name}" for _, name in made)
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize("appeared", [0, 1, 2])
@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_what_appeared_meanwhile_stays_and_nothing_else_is_there(made, appeared, kind):
    name = made[appeared][1]
    name.write_text("theirs") if kind == "file" else name.symlink_to("nowhere")
    with pytest.raises(OutputError, match=f"{name.name} has appeared meanwhile"):
        give_names(made, overwrite=False)
    assert [path for _, path in made if path.exists() or path.is_symlink()] == [name]
    assert name.is_symlink() or name.read_text() == "theirs"


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_after_a_failure_all_is_as_it_was(made, failing):
    """The files that were replaced are back, those that were not there are gone."""
    made[0][1].write_text("old report")
    made[2][1].write_text("old model")
    made[failing][0].unlink()
    with pytest.raises(OutputError, match="nothing was changed"):
        give_names(made, overwrite=True)
    assert made[0][1].read_text() == "old report"
    assert not made[1][1].exists()
    assert made[2][1].read_text() == "old model"


def test_what_is_replaced_gives_its_permissions(made):
    made[2][1].write_text("old")
    made[2][1].chmod(0o640)
    give_names(made, overwrite=True)
    assert stat.S_IMODE(made[2][1].stat().st_mode) == 0o640
    assert made[2][1].read_text() == "new model.onnx"


def test_a_link_stays_a_link(tmp_path, made):
    """What it leads to is replaced."""
    (tmp_path / "real.onnx").write_text("old")
    made[2][1].symlink_to("real.onnx")
    give_names(made, overwrite=True)
    assert made[2][1].is_symlink()
    assert (tmp_path / "real.onnx").read_text() == "new model.onnx"


def test_a_file_is_written_through_a_link_with_its_permissions(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to("real")
    write_atomically(link, [b"new"], overwrite=True)
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_a_link_to_nothing_is_not_written_unasked(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    with pytest.raises(OutputError, match="is a link to nothing"):
        check_output(link, overwrite=False)
    with pytest.raises(OutputError, match="exists"):
        write_atomically(link, [b"new"], overwrite=False)
    assert not link.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_get_their_names_like_files(tmp_path, overwrite):
    """With their contents; what had the name goes as a whole."""
    made = tmp_path / "made" / "out"
    made.mkdir(parents=True)
    (made / "new").write_text("new")
    if overwrite:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").write_text("old")
    give_names([(made, tmp_path / "out")], overwrite=overwrite)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]


@pytest.mark.parametrize("kind", ["file", "folder", "link to nothing"])
def test_a_folder_takes_no_name_that_appeared_meanwhile(tmp_path, kind):
    made, name = tmp_path / "made" / "out", tmp_path / "out"
    made.mkdir(parents=True)
    {"file": name.touch, "folder": name.mkdir, "link to nothing": lambda: name.symlink_to("nowhere")}[kind]()
    with pytest.raises(OutputError, match="out has appeared meanwhile"):
        give_names([(made, name)], overwrite=False)
    assert made.is_dir()
    assert name.is_symlink() or not name.is_dir() or not any(name.iterdir())


def test_a_file_does_not_replace_a_folder(tmp_path, made):
    made[2][1].mkdir()
    with pytest.raises(OutputError, match="a folder and a file do not replace each other"):
        give_names(made, overwrite=True)
    assert not made[0][1].exists()


@pytest.mark.parametrize(
    ("sources", "mode"), [((0o600,), 0o600), ((0o640, 0o604), 0o600), ((0o644, 0o640), 0o660), ((0o644,), 0o664)]
)
def test_what_is_made_of_a_private_file_is_private(tmp_path, made, sources, mode):
    """Who may not read one of the sources may not read the result, where it is new; where it replaces, rights stay."""
    files = [tmp_path / f"source.{number}" for number in range(len(sources))]
    for file, rights in zip(files, sources, strict=True):
        file.touch()
        file.chmod(rights)
    for file, _ in made:
        file.chmod(0o664)
    made[0][1].touch()
    made[0][1].chmod(0o644)
    give_names(made, overwrite=True, sources=files)
    assert [stat.S_IMODE(name.stat().st_mode) for _, name in made] == [0o644, mode, mode]
