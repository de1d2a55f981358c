"""Tagged words in columns, as the files of shared tasks have them."""

from pathlib import Path

import pytest

from onnxslim_bert.calibration.files import read_columns
from onnxslim_bert.errors import DataError

READ = [["New York", "is"], ["#London", "\u00a0", "x"]], [["B-LOC", "O"], ["B-LOC", "O", "O"]]
WRITTEN = {
    "tabs.conll": "New York\tB-LOC\nis\tO\n\n\n#London\tB-LOC\n\u00a0\tO\nx\tO",
    "comments.conll": "# id=1f d=en\nNew York\t_\tB-LOC\nis\t_\tO\n \n#x\n#London\t_\tB-LOC\n\u00a0\t_\tO\nx\t_\tO\n",
    "documents.bio": "-DOCSTART- -X- O O\n\nNew York\tB-LOC\nis\tO\n-DOCSTART- O\n\n#London B-LOC\n\u00a0 O\nx  O\n\n",
    "numbered.conllu": "1\tNew York\tB-LOC\n2\tis\tO\n\n1-2\tit's\t_\n1\t#London\tB-LOC\n2\t\u00a0\tO\n3\tx\tO\n",
    "windows.iob2": "\ufeffNew York\tB-LOC\r\nis\tO\r\n\r\n#London\tB-LOC\r\n\u00a0\tO\r\nx\tO\r\n",
    "train.txt": "New York\tB-LOC\nis\tO\n\n#London\tB-LOC\n\u00a0\tO\nx O\n",
    "test.tsv": "New York\tB-LOC\nis\tO\n\n#London\tB-LOC\n\u00a0\tO\nx\tO\n",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_words_and_tags_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(WRITTEN[name], newline="")
    found = read_columns(path)
    assert (found["words"], found["tags"]) == READ


def test_tags_of_ten_numbered_columns_are_parts_of_speech(tmp_path: Path) -> None:
    """Those of CoNLL-U; its last column says other things."""
    path = tmp_path / "rows.conllu"
    path.write_text("1\tshe\tshe\tPRON\t_\t_\t2\tnsubj\t_\t_\n2\tran\trun\tVERB\t_\t_\t0\troot\t_\tSpaceAfter=No\n")
    found = read_columns(path)
    assert (found["words"], found["tags"]) == ([["she", "ran"]], [["PRON", "VERB"]])


def test_columns_have_numbers(tmp_path: Path) -> None:
    """Those that all lines have."""
    path = tmp_path / "rows.conll"
    path.write_text("He PRP B-NP O\nran VBD B-VP O extra\n\nSo RB O O\n")
    found = read_columns(path)
    assert list(found) == ["words", "tags", "1", "2", "3", "4"]
    assert (found["2"], found["tags"]) == ([["PRP", "VBD"], ["RB"]], [["O", "extra"], ["O"]])


@pytest.mark.parametrize("text", ["Group O\nblood B-1\n", "one\ntwo O\nthree O\n", "a\tb\nx\tO\ny\tO\nz\tO\n"])
def test_other_texts_stay_texts(tmp_path: Path, text: str) -> None:
    """Too few lines, or one without a tag of entities."""
    path = tmp_path / "rows.txt"
    path.write_text(text)
    assert read_columns(path) == {"text": text.splitlines()}


def test_a_line_without_a_tag_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.conll"
    path.write_text("a O\nb\n")
    with pytest.raises(DataError, match="line 2: one column: needed a word and its tag"):
        read_columns(path)
