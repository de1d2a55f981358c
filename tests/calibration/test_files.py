"""Every file type gives the same columns; every fault is one line that says where."""

import codecs
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxslim_bert.calibration.files import read_columns, read_feeds
from onnxslim_bert.errors import DataError

Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", b"sentence\tlabel\ngood\t1\nbad\t0\n"),
        ("windows.tsv", b"\xef\xbb\xbfsentence\tlabel\r\ngood\t1\r\n\r\nbad\t0\r\n"),
        ("a.csv", b'sentence,label\n"good",1\nbad,0\n'),
        ("A.TSV", b"sentence\tlabel\ngood\t1\nbad\t0"),
        ("spreadsheet.txt.tsv", "sentence\tlabel\r\ngood\t1\r\nbad\t0\r\n".encode("utf-16")),
        ("mark.csv", codecs.BOM_UTF16_BE + 'sentence,label\n"good",1\nbad,0\n'.encode("utf-16-be")),
        ("semicolons.csv", b'sentence;label\r\n"good";1\r\nbad;0\r\n'),
        ("tabs.csv", b"sentence\tlabel\ngood\t1\nbad\t0\n"),
        ("bars.csv", b'"sentence"|label\n"good"|1\nbad|0\n'),
        ("said.csv", b"\xef\xbb\xbfsep=;\r\nsentence;label\r\ngood;1\r\nbad;0\r\n"),
        ("quoted.tsv", b'"sentence"\t"label"\n"good"\t"1"\n"bad"\t0\n'),
        ("a.json", b'[{"sentence": "good", "label": "1"}, {"sentence": "bad", "label": "0"}]'),
        ("hub.json", b'{"data": [{"sentence": "good", "label": "1"}, {"sentence": "bad", "label": "0"}]}'),
        ("columns.json", b'{"sentence": ["good", "bad"], "label": ["1", "0"]}'),
        (
            "page.json",
            b'{"features": [], "rows": [{"row": {"sentence": "good", "label": "1"}, "truncated_cells": []},'
            b' {"row": {"sentence": "bad", "label": "0"}, "truncated_cells": []}]}',
        ),
    ],
)
def test_text_tables_hold_the_same_columns(write: Write, name: str, content: bytes) -> None:
    """A byte order mark, Windows line ends, blank lines, a missing last newline and what parts cells change nothing."""
    assert read_columns(write(name, content)) == {"sentence": ["good", "bad"], "label": ["1", "0"]}


def test_a_mark_in_quotes_parts_nothing(write: Write) -> None:
    assert list(read_columns(write("a.csv", b'"text, as it is";label\ngood;1\n'))) == ["text, as it is", "label"]


def test_a_quotation_mark_in_a_tsv_is_text(write: Write) -> None:
    """GLUE's files quote nothing: a row may start with a quotation mark that never closes."""
    path = write("a.tsv", b'sentence\tlabel\n"it \'s a start\t1\nan "end"\t0\n')
    assert read_columns(path)["sentence"] == ["\"it 's a start", 'an "end"']


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt"])
def test_a_very_long_text_is_a_text(write: Write, name: str) -> None:
    """A cell may be as long as a line; where a mark within it parts cells elsewhere, it is in quotes."""
    text = "word; " * 100_000
    content = {".json": json.dumps([{"text": text}]), ".jsonl": json.dumps({"text": text}), ".txt": text}
    table = f'text,label\n"{text}",1\n' if name == "a.csv" else f"text\tlabel\n{text}\t1\n"
    limit = csv.field_size_limit()
    assert read_columns(write(name, content.get(Path(name).suffix, table).encode()))["text"] == [text]
    assert csv.field_size_limit() == limit


def test_only_newlines_end_a_line(write: Write) -> None:
    """Other characters that Unicode calls line ends stay inside their text."""
    text = "one\x0btwo\x85three\u2028four"
    assert read_columns(write("a.tsv", f"sentence\tlabel\n{text}\t1\n".encode()))["sentence"] == [text]
    assert read_columns(write("a.txt", f"{text}\n".encode())) == {"text": [text]}


def test_labels_of_fasttext_are_labels(write: Write) -> None:
    """One a line, or several; texts of which some have none are texts."""
    assert read_columns(write("a.txt", b"__label__pos a fine film\n__label__neg dull\n")) == {
        "text": ["a fine film", "dull"],
        "label": ["pos", "neg"],
    }
    assert read_columns(write("b.txt", b"__label__x __label__y a\n__label__x b\n"))["label"] == [["x", "y"], ["x"]]
    assert list(read_columns(write("c.txt", b"__label__x a\nb\n"))) == ["text"]


def test_jsonl_keeps_numbers_and_marks_gaps(write: Write) -> None:
    """Values are as JSON has them; a key that a row lacks is None."""
    path = write("a.jsonl", b'{"text": "good", "label": 1}\n\n{"text": "bad"}\n')
    assert read_columns(path) == {"text": ["good", "bad"], "label": [1, None]}


def test_parquet_gives_its_columns_as_json_does(tmp_path: Path) -> None:
    """Lists and records too: the words, endings and answers of the hub's data sets are such."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rows = {
        "text": ["good", None],
        "label": [1, 0],
        "answers": [{"text": ["x", "y"], "start": [1, 2]}, {"text": [], "start": []}],
        "tags": [[1, 2], []],
        "words": [["a", "b"], ["c"]],
    }
    for options in ({}, {"use_dictionary": False}):
        pq.write_table(pa.table(rows), tmp_path / "a.parquet", **options)
        assert read_columns(tmp_path / "a.parquet") == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", b"sentence\tlabel\ngood\t1\nbad\n", "a.tsv, line 3: 1 cells: needed 2"),
        ("a.csv", b"sentence,label\ngood,1\nbad,0,0\n", "a.csv, line 3: 3 cells: needed 2"),
        ("a.csv", b'sentence,label\n"good,1\n', "a.csv, line 2: not CSV"),
        ("a.tsv", b"text\ttext\na\tb\n", "a column name occurs twice"),
        ("a.jsonl", b'{"text": "good"}\n{"text": \n', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: not JSON"),
        ("a.jsonl", b'{"text": "good"}\n["bad"]\n', "a.jsonl, line 2: list: needed one JSON object a row"),
        ("a.json", b'[{"text": "good"}, ["bad"]]', "a.json, object 2: list: needed one JSON object a row"),
        ("a.json", b'"good"', "a.json: not SQuAD"),
        ("a.json", b"[]", "no rows"),
        (
            "a.json",
            b'{"train": [{"text": "a"}], "test": []}',
            "found the lists train, test: needed columns",
        ),
        ("a.txt", b"good\n\xff\xfe\n", "byte 0xff is not UTF-8"),
        ("a.txt", codecs.BOM_UTF16_LE + b"g", "byte 0x67 is not UTF-16"),
        ("a.tsv", b"sentence\tlabel\n", "no rows"),
        ("a.tsv", b"", "no rows"),
        ("a.txt", b"\n \n", "no rows"),
        ("a.jsonl", b"", "no rows"),
        ("a.parquet", b"PAR1 and then nothing", "not parquet"),
        ("a.xlsx", b"", "unknown file type '.xlsx': needed one of .tsv"),
    ],
)
def test_a_faulty_file_is_refused(write: Write, name: str, content: bytes, message: str) -> None:
    """One line says what was found, where, and what was needed."""
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=message) as caught:
        read_columns(write(name, content))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """The system's reason is in the message."""
    with pytest.raises(DataError, match="No such file"):
        read_columns(tmp_path / "a.tsv")


def test_npz_gives_its_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", input_ids=np.ones((3, 5), np.int64), label=np.zeros(3))
    feeds = read_feeds(tmp_path / "a.npz")
    assert {name: values.shape for name, values in feeds.items()} == {"input_ids": (3, 5), "label": (3,)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": np.array([[1], [2, 3]], object)}, "Object arrays cannot be loaded"),
        ({"ids": np.ones((3, 5)), "mask": np.ones((2, 5))}, r"rows are \{'ids': 3, 'mask': 2\}"),
        ({"ids": np.ones((0, 5))}, "at least one"),
        ({"ids": np.array(7)}, r"needed numbers \[rows, ...\]"),
        ({"ids": np.array(["a", "b"])}, r"needed numbers \[rows, ...\]"),
        ({"ids": np.array([[1.0], [np.nan]])}, "NaN or inf"),
        ({}, "at least one"),
    ],
)
def test_a_faulty_npz_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    """Ragged rows reach an npz as objects, and those are never unpickled."""
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_feeds(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"random bytes", b"PK\x03\x04 cut short", b"\x93NUMPY"])
def test_a_broken_npz_is_refused(write: Write, content: bytes) -> None:
    with pytest.raises(DataError, match="not an npz of plain arrays"):
        read_feeds(write("a.npz", content))


def test_a_lone_array_is_no_npz(tmp_path: Path) -> None:
    """np.save writes one array without a name, whatever the file is called."""
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.ones((3, 5)))
    with pytest.raises(DataError, match="one array, not an archive"):
        read_feeds(tmp_path / "a.npz")
