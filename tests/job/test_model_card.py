"""Cards of other people's folders: their metadata are read within bounds, and what is none stays text."""

import os
from pathlib import Path

import pytest

from onnxslim_bert.errors import DataError
from onnxslim_bert.job.model_card import _read


def unfolding(form: str) -> str:
    """Nine lines, each of which holds the one before it nine times."""
    lines = (f"{b}: &{b} " + form % ", ".join([f"*{a}"] * 9) for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    return "\n".join(["a: &a {x: x}", *lines])


BOMB, LAUGHS = unfolding("{<<: [%s]}"), unfolding("[%s]")


@pytest.mark.parametrize(
    "head",
    [BOMB, "[" * 50_000, "a: [", "\x00", "- a\n- b", "a: !!python/object/apply:os.system [x]", "a: x\n" * 100_000],
    ids=["merges", "brackets", "cut off", "NUL", "list", "code", "long"],
)
def test_metadata_that_cannot_be_read_stay_text(tmp_path: Path, head: str) -> None:
    text = f"---\n{head}\n---\n# A model\n"
    (tmp_path / "README.md").write_text(text)
    assert _read(tmp_path / "README.md") == ({}, text)


def test_a_list_of_lists_does_not_unfold(tmp_path: Path) -> None:
    """It is kept as it is: the same list in many places."""
    (tmp_path / "README.md").write_text(f"---\n{LAUGHS}\n---\n# A model\n")
    metadata, text = _read(tmp_path / "README.md")
    assert (len(metadata), text) == (9, "# A model\n")
    assert metadata["i"][0] is metadata["i"][8]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
        (lambda path: path.mkdir(), "no regular file"),
        (lambda path: (path.touch(), os.truncate(path, 1 << 33)), "8,590 MB"),
    ],
)
def test_a_card_that_is_no_file_is_refused(tmp_path, make, said):
    make(tmp_path / "README.md")
    with pytest.raises(DataError, match=said):
        _read(tmp_path / "README.md")


def test_without_a_card_there_is_nothing(tmp_path: Path) -> None:
    assert _read(tmp_path / "README.md") == ({}, "")
