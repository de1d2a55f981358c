"""A process that is killed while files get their names leaves all of them or none, once the next one has looked."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxslim_bert.graph import naming
from onnxslim_bert.graph.claims import LOCK, PREFIX, claimed, remove_dead
from onnxslim_bert.graph.naming import JOURNAL, give_names

NAMES = ("report.json", "weights", "folder", "model.onnx")
MOST_CALLS = 40


def write(folder: Path, age: str, names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        if name == "folder":
            (folder / name).mkdir()
            (folder / name / f"{age}.onnx").write_text(age)
        else:
            (folder / name).write_text(age)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def killed_at(call: int, work: Callable[[], None]) -> bool:
    """Do the work in a fork that dies when it changes a name for the `call`th time; whether it died."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    left = [call]

    def dying(function: Callable[..., object]) -> Callable[..., object]:
        def call_or_die(*arguments: object, **options: object) -> object:
            left[0] -= 1
            if not left[0]:
                os._exit(9)
            return function(*arguments, **options)

        return call_or_die

    for name in ("link", "unlink", "replace", "rename", "chmod", "open", "fsync"):
        setattr(os, name, dying(getattr(os, name)))
    try:
        work()
    finally:
        os._exit(0)


@pytest.mark.parametrize("old", [(), NAMES, ("report.json", "folder")], ids=["new", "replaced", "some replaced"])
def test_killed_at_any_moment_all_or_none(tmp_path, old):
    """And nothing else stays; moments are all calls that change names."""
    finished = 0
    for call in range(1, MOST_CALLS):
        place = tmp_path / str(call)
        place.mkdir()
        write(place, "old", old)
        before = contents(place)

        def work(place: Path = place) -> None:
            with claimed(place / "model.onnx") as folder:
                write(folder, "new")
                give_names([(folder / name, place / name) for name in NAMES], overwrite=bool(old))

        died = killed_at(call, work)
        remove_dead(place)
        after = contents(place)
        assert after == before or set(after.values()) == {"new"}, (call, after)
        assert not list(place.glob(f"{PREFIX}*"))
        finished += not died
        if finished == 2:
            assert call > 2 * len(NAMES), "each move is some calls"
            return
    pytest.fail(f"not done after {MOST_CALLS} calls")


def left_half_moved(place: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool) -> Path:
    """The claim of a process that was killed when all but the last file had their names."""

    def work() -> None:
        with claimed(place / "model.onnx") as folder:
            write(folder, "new")
            moves = [(folder / name, place / name) for name in NAMES]
            moving = naming._Move.do
            monkeypatch.setattr(
                naming._Move, "do", lambda move: os._exit(9) if move.file.name == NAMES[-1] else moving(move)
            )
            give_names(moves, overwrite=overwrite)

    child = os.fork()
    if not child:
        work()
    os.waitpid(child, 0)
    return place / f"{PREFIX}model.onnx"


def test_what_others_have_put_there_since_stays(tmp_path, monkeypatch):
    """Only what the killed process moved is taken back."""
    left_half_moved(tmp_path, monkeypatch, overwrite=False)
    (tmp_path / "weights").unlink()
    (tmp_path / "weights").write_text("theirs")
    remove_dead(tmp_path)
    assert contents(tmp_path) == {"weights": "theirs"}


def test_what_cannot_go_back_stays_where_it_is(tmp_path, monkeypatch):
    """Somebody has made a folder of that name since: the old one is kept in the claim."""
    write(tmp_path, "old")
    claim = left_half_moved(tmp_path, monkeypatch, overwrite=True)
    (tmp_path / "folder").rename(tmp_path / "moved away")
    (tmp_path / "folder").mkdir()
    remove_dead(tmp_path)
    assert (claim / "replaced.2" / "old.onnx").read_text() == "old"
    assert (tmp_path / "model.onnx").read_text() == "old"


@pytest.mark.parametrize("name", ["../victim", "/victim", "link/victim"])
def test_a_journal_names_no_other_folder(tmp_path, name):
    """It may come with somebody's archive."""
    work, victim = tmp_path / "work", tmp_path / "victim"
    victim.write_text("mine")
    claim = work / f"{PREFIX}x"
    claim.mkdir(parents=True)
    (claim / LOCK).touch()
    (work / "link").symlink_to(tmp_path)
    state = victim.stat()
    named = str(victim) if name == "/victim" else name
    (claim / JOURNAL).write_text(
        f'[{{"file": "x", "name": "{named}", "kept": "", "identity": '
        f"[{state.st_ino}, {state.st_mtime_ns}, {state.st_size}]}}]"
    )
    remove_dead(work)
    assert victim.read_text() == "mine"
    assert not claim.exists()


def test_what_cannot_be_moved_back_now_is_kept(tmp_path, monkeypatch):
    """The claim stays for a later job, which may be allowed to."""
    write(tmp_path, "old")
    claim = left_half_moved(tmp_path, monkeypatch, overwrite=True)

    def refuse(_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(naming._Move, "undo", refuse)
        remove_dead(tmp_path)
    assert claim.exists()
    remove_dead(tmp_path)
    assert set(contents(tmp_path).values()) == {"old"}
    assert not claim.exists()
