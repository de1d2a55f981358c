"""The folder of unfinished work holds one state a key, and deletes nothing that it has not written."""

import numpy as np
import pytest

from onnxslim_bert.errors import OutputError
from onnxslim_bert.job.unfinished import UnfinishedFolder

KEY, OTHER = "a" * 64, "b" * 64
STATE = {"weights/0": np.arange(6, dtype=np.float32).reshape(2, 3), "counts": np.array([3, 1])}


def test_the_last_state_of_each_key_comes_back(tmp_path):
    folder = UnfinishedFolder(tmp_path / "out.unfinished")
    assert folder.get(KEY) is None
    assert not folder.folder.exists()
    folder.put(KEY, {"counts": np.array([0])})
    folder.put(KEY, STATE)
    folder.put(OTHER, {})
    found = UnfinishedFolder(folder.folder).get(KEY)
    assert found is not None
    assert found.keys() == STATE.keys()
    for name, values in STATE.items():
        np.testing.assert_array_equal(found[name], values)
    assert folder.get(OTHER) == {}
    folder.remove()
    assert not folder.folder.exists()
    folder.remove()


def test_what_is_damaged_is_none(tmp_path):
    folder = UnfinishedFolder(tmp_path / "out.unfinished")
    folder.put(KEY, STATE)
    (folder.folder / f"{KEY}.npz").write_bytes(b"PK\x03\x04")
    assert folder.get(KEY) is None


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_others_have_there_is_left_alone(kind, tmp_path):
    path, elsewhere = tmp_path / "out.unfinished", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    else:
        path.symlink_to(elsewhere)
    folder = UnfinishedFolder(path)
    with pytest.raises(OutputError, match="is in the way: unfinished work is kept there"):
        folder.put(KEY, STATE)
    folder.remove()
    assert path.exists()
    assert kind != "folder" or (path / "notes.txt").read_text() == "mine"
    assert not list(elsewhere.iterdir())
