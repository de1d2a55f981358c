"""What a search remembers, and what it does not trust."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from made_up import options

from onnxslim_bert.errors import OutputError
from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.costs import Costs
from onnxslim_bert.job.search.search_folder import Candidate, SearchFolder
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity

STEPS = [
    Alternative(damage=0.1),
    Alternative("drop-layers", 0.1 + 0.2, 1 / 3, 7.0, (1, 2)),
    Alternative("t", after=1, keep=0.35),
    Alternative(ms=-1 / 7, floats=(0, 5)),
]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "small.search"


def never():
    raise AssertionError("measured again")


def kept(folder, name="0123456789abcdef.onnx"):
    """A candidate whose file is in the folder."""
    (folder / name).write_bytes(b"weights")
    return Candidate("canonicalize?,fuse?", folder / name, 7, 0.1, 1 / 3)


def test_tables_come_back_exactly(folder):
    """From another state on the same folder, without being measured again."""
    found = options()
    first = SearchFolder(folder, "key")
    first.once("widths", list[Sensitivity], lambda: found.sensitivities)
    first.once("costs", Costs, lambda: found.costs)
    first.once("layers", list[Alternative], lambda: STEPS)
    first.once("method", str, lambda: "mse")
    again = SearchFolder(folder, "key")
    assert again.once("costs", Costs, never) == found.costs
    assert again.once("layers", list[Alternative], never) == STEPS
    assert again.once("method", str, never) == "mse"
    sensitivities = again.once("widths", list[Sensitivity], never)
    for one, other in zip(sensitivities, found.sensitivities, strict=True):
        assert (one.site, one.damage) == (other.site, other.damage)
        np.testing.assert_array_equal(one.order, other.order)
        assert one.order.dtype == other.order.dtype


def test_a_table_is_on_disk_as_soon_as_it_is_measured(folder):
    """A process that is killed right after loses nothing, and one that is killed within it loses that table alone."""
    state = SearchFolder(folder, "key")
    state.once("method", str, lambda: "mse")
    with pytest.raises(KeyboardInterrupt):
        state.once("costs", Costs, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    again = SearchFolder(folder, "key")
    assert again.once("method", str, never) == "mse"
    assert again.once("costs", Costs, lambda: options().costs) == options().costs


def test_candidates_come_back_while_their_file_is_there(folder):
    """With what they were judged."""
    state = SearchFolder(folder, "key")
    candidate = kept(folder)
    state.keep_candidate(candidate)
    assert SearchFolder(folder, "key").candidate(candidate.recipe) == candidate
    state.keep_candidate(replace(candidate, drop=0.5))
    again = SearchFolder(folder, "key")
    assert again.candidate(candidate.recipe) == replace(candidate, drop=0.5)
    assert again.candidate("fuse?") is None
    candidate.file.unlink()
    assert again.candidate(candidate.recipe) is None


@pytest.mark.parametrize(
    "held", ['{"key": "key", "tab', "", "[]", "\x00"], ids=["truncated", "empty", "list", "binary"]
)
def test_a_broken_state_starts_anew(folder, held):
    """Nothing of it is believed, and its models go."""
    state = SearchFolder(folder, "key")
    state.once("method", str, lambda: "mse")
    file = kept(folder).file
    (folder / "state.json").write_text(held)
    assert SearchFolder(folder, "key").once("method", str, lambda: "entropy") == "entropy"
    assert not file.exists()


def test_another_key_starts_anew(folder):
    state = SearchFolder(folder, "key")
    state.once("method", str, lambda: "mse")
    state.keep_candidate(kept(folder))
    again = SearchFolder(folder, "another")
    assert again.candidate("canonicalize?,fuse?") is None
    assert again.once("method", str, lambda: "entropy") == "entropy"
    assert [path.name for path in folder.iterdir()] == ["state.json"]
    assert json.loads((folder / "state.json").read_text())["key"] == "another"


def test_an_interrupted_first_writing_is_no_obstacle(folder):
    folder.mkdir()
    (folder / ".state.json.k3j4h5").write_text('{"ke')
    SearchFolder(folder, "key")
    assert [path.name for path in folder.iterdir() if path.suffix == ".json"] == ["state.json"]


@pytest.mark.parametrize("is_file", [True, False], ids=["file", "folder"])
def test_what_is_no_state_is_left_alone(folder, is_file):
    """A search deletes its own folder in the end, so it takes no other."""
    if is_file:
        folder.write_text("mine")
    else:
        folder.mkdir()
        (folder / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"small\.search is in the way: a search keeps its state there; move it or"):
        SearchFolder(folder, "key")
    assert (folder if is_file else folder / "thesis.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    with pytest.raises(OutputError, match=r"cannot be made \(No such file or directory\); give another output"):
        SearchFolder(tmp_path / "missing" / "small.search", "key")


def test_nothing_is_left_in_the_end(folder):
    state = SearchFolder(folder, "key")
    state.keep_candidate(kept(folder))
    state.remove()
    assert not folder.exists()
    state.remove()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    "names", [[], ["notes.txt"], ["mine.onnx"], ["state.json"], ["state.json", "notes.txt"], ["deep"]]
)
def test_somebodys_folder_stays(folder, names):
    """Whatever it holds, if a search did not write it."""
    folder.mkdir()
    for name in names:
        (folder / name).mkdir() if name == "deep" else (folder / name).write_text('{"theirs": 1}')
    with pytest.raises(OutputError, match="is in the way"):
        SearchFolder(folder, "key")
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize("name", ["notes.txt", "best-so-far.onnx", "best.onnx.data"])
def test_what_somebody_put_into_a_searchs_folder_stays(folder, name):
    state = SearchFolder(folder, "key")
    state.keep_candidate(kept(folder))
    (folder / name).write_text("mine")
    SearchFolder(folder, "another").remove()
    assert [path.name for path in folder.iterdir()] == [name]


def test_the_folder_of_a_search_is_its_owners_alone(folder):
    """The models in it may be made of private ones."""
    SearchFolder(folder, "key")
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "held", [None, 3, [], {}, {"source_ms": "fast"}, {"source_ms": 1, "full_ms": 2, "savings": []}]
)
def test_a_table_that_cannot_be_read_is_measured_again(folder, held):
    SearchFolder(folder, "key").once("method", str, lambda: "mse")
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"tables": {"costs": held}}))
    for _ in "first", "again":
        assert SearchFolder(folder, "key").once("costs", Costs, lambda: options().costs) == options().costs
    assert SearchFolder(folder, "key").once("costs", Costs, never) == options().costs
