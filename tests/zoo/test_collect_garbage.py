"""What nobody needs goes, and nothing else does."""

import os
import platform
import subprocess
import sys
import time

import pytest

from onnxslim_bert.zoo.store.collect_garbage import DAY, delete, leftovers, unreferenced
from onnxslim_bert.zoo.store.storage import WORKSPACES, Storage
from onnxslim_bert.zoo.store.workspaces import ELSEWHERE

KEEP, GO = "a" * 64, "b" * 64


@pytest.fixture(params=["folder", "memory"])
def storage(request, tmp_path):
    place = Storage(tmp_path if request.param == "folder" else f"memory://{tmp_path}")
    for key in (KEEP, GO):
        place.write(f"objects/{key}/model.onnx", b"12345")
        place.write(f"objects/{key}/result.json", b"{}")
        place.write(f"logs/{key}.txt", b"123")
        place.write(f"cache/{key}.npz", b"1")
    yield place
    for folder in ("objects", "logs", "cache"):
        place.delete(folder)


def test_results_and_logs_of_other_tasks_go(storage):
    """With all their files; what was cached lately stays, whoever needs it."""
    found = unreferenced(storage, {KEEP})
    assert [(item.name, item.nbytes) for item in found] == [(f"objects/{GO}", 7), (f"logs/{GO}.txt", 3)]
    assert delete(storage, found) == 10
    assert storage.names("objects") == [f"objects/{KEEP}/model.onnx", f"objects/{KEEP}/result.json"]
    assert storage.names("logs") == [f"logs/{KEEP}.txt"]
    assert len(storage.names("cache")) == 2
    assert unreferenced(storage, {KEEP}) == []


def test_what_is_not_called_by_a_key_stays(storage):
    """A user's own files in a folder of that name."""
    for name in ("objects/mine/a.txt", "logs/ci.txt", "cache/pip.npz"):
        storage.write(name, b"1")
    found = unreferenced(storage, set(), cache_age=-1)
    assert {item.name.split("/")[1].partition(".")[0] for item in found} == {KEEP, GO}


def test_old_entries_of_the_cache_go(storage):
    """Unless they are named."""
    time.sleep(0.02)
    found = unreferenced(storage, {KEEP, GO}, cache_age=0.01)
    assert found == []
    found = unreferenced(storage, {KEEP}, cache_age=0.01)
    assert f"cache/{GO}.npz" in [item.name for item in found]
    assert f"cache/{KEEP}.npz" not in [item.name for item in found]
    assert not any(item.name.startswith("cache") for item in unreferenced(storage, set(), cache_age=DAY))


def test_nothing_to_keep_is_everything_to_go(storage):
    """And the storage goes on to work."""
    delete(storage, unreferenced(storage, set(), cache_age=-1))
    assert [storage.names(folder) for folder in ("objects", "logs", "cache")] == [[], [], []]
    storage.write(f"objects/{GO}/result.json", b"{}")


def test_what_killed_processes_left_goes(tmp_path):
    """Not what living ones have, here or, for a day, on another machine."""
    place = Storage(tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()

    def leave(owner: str) -> str:
        folder = tmp_path / WORKSPACES / f"{owner}@x"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_text("12345")
        return f"{WORKSPACES}/{folder.name}"

    gone = leave(f"{dead.pid}@{platform.node()}")
    leave("1@another.machine")
    for name in ("no workspace", "me@example.com@backup", "12@host@Not ours"):
        (tmp_path / WORKSPACES / name).mkdir()
    (tmp_path / WORKSPACES / f"{dead.pid}@{platform.node()}@file").write_text("mine")
    with place.workspace() as mine:
        assert [(item.name, item.nbytes) for item in leftovers(place)] == [(gone, 5)]
        assert delete(place, unreferenced(place, set())) == 5
        assert mine.is_dir()
    assert leftovers(place) == []

    elsewhere = tmp_path / leave("2@another.machine")
    os.utime(elsewhere, (0, time.time() - ELSEWHERE - 1))
    recycled = tmp_path / leave(f"{os.getpid()}@{platform.node()}")  # of an earlier process with this one's number
    os.utime(recycled, (1e9, 1e9))
    assert [item.name for item in leftovers(place)] == sorted(
        f"{WORKSPACES}/{folder.name}" for folder in (elsewhere, recycled)
    )


def test_a_store_elsewhere_has_no_leftovers():
    """Its temporary folders are the system's."""
    assert leftovers(Storage("memory://nothing")) == []
