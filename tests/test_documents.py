"""Documents come back as what they were written from, and foreign ones are refused with the place of the fault."""

import codecs
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from onnxslim_bert.arrays import Array
from onnxslim_bert.documents import plain, read_document, read_lines, read_object, structured, write_document
from onnxslim_bert.errors import DataError


@dataclass(frozen=True)
class Part:
    """One part of a letter."""

    name: str
    sizes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Letter:
    """A document of every kind of field."""

    SCHEMA: ClassVar[int] = 1

    schema: int
    parts: tuple[Part, ...]
    by_name: dict[str, Part]
    done: bool
    note: str | None = None
    count: int = 0


@dataclass(frozen=True)
class Table:
    """Measured numbers."""

    order: Array
    damage: dict[int, float]
    worst: float


WRITTEN = Letter(1, (Part("a", (1.5, 2.0)), Part("b")), {"c": Part("c", (0.1,))}, True, "note", 7)


def test_a_document_comes_back() -> None:
    assert read_document(Letter, write_document(WRITTEN), "letter") == WRITTEN
    assert structured(Letter, plain(WRITTEN) | {"mood": "good"}) == WRITTEN


def test_numbers_come_back() -> None:
    """Arrays as arrays, keys as integers, what is not finite as NaN."""
    table = Table(np.array([3, 1, 2]), {3: 1 / 3, 1: 0.0}, math.inf)
    found = structured(Table, json.loads(json.dumps(plain(table), allow_nan=False)))
    np.testing.assert_array_equal(found.order, table.order)
    assert found.order.dtype == table.order.dtype
    assert found.damage == table.damage
    assert math.isnan(found.worst)


def test_what_json_does_not_know_is_made_plain() -> None:
    value = {1: (np.float32(0.5), np.int64(3), np.array([[1.0, math.nan]])), "path": Path("a/b"), "none": None}
    assert plain(value) == {"1": [0.5, 3, [[1.0, None]]], "path": "a/b", "none": None}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "letter has schema version 2: this program reads 1"),
        ({"schema": True}, "letter: schema is true: needed an integer"),
        ({"parts": {}}, "letter: parts is {}: needed a list"),
        ({"parts": "ab"}, 'letter: parts is "ab": needed a list'),
        ({"parts": [3]}, "letter: parts: item 0 is 3: needed an object"),
        ({"parts": [{"sizes": []}]}, "letter: parts: item 0 is incomplete: needed name"),
        ({"parts": [{"name": "a", "sizes": [1, "2"]}]}, 'letter: parts: item 0: sizes: item 1 is "2": needed a number'),
        ({"parts": [{"name": "a", "sizes": [1e999]}]}, "letter: parts: item 0: sizes: item 0 is inf: needed a finite"),
        ({"by_name": []}, "letter: by_name is []: needed an object"),
        ({"by_name": {"c": {"name": 1}}}, "letter: by_name: c: name is 1: needed a string"),
        ({"by_name": {"\x1b[2J": {"name": "c"}}}, "holds control characters: needed plain text"),
        ({"done": 1}, "letter: done is 1: needed true or false"),
        ({"note": 1}, "letter: note is 1: needed a string"),
        ({"count": 1.0}, "letter: count is 1.0: needed an integer"),
        ({"mood": 1}, "letter: 'mood' is no field of a letter"),
        ({"mood\x1b": 1}, "letter: 'mood\\x1b' is no field of a letter"),
    ],
)
def test_a_foreign_document_is_refused_where_it_is_wrong(change: dict[str, Any], said: str) -> None:
    text = json.dumps(asdict(WRITTEN) | change).replace("Infinity", "1e999").encode()
    with pytest.raises(DataError) as caught:
        read_document(Letter, text, "letter")
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("document", [None, 3, "x", [], {}, {"schema": 1}, {"parts": 1, "by_name": {"c": 3}}])
def test_what_is_no_such_document_is_refused(document: object) -> None:
    with pytest.raises(DataError, match=r"^no letter document"):
        structured(Letter, document)


def test_a_document_in_another_encoding_is_refused() -> None:
    """Also where a JSON reader would guess it."""
    with pytest.raises(DataError, match="no JSON"):
        read_document(Letter, write_document(WRITTEN).decode().encode("utf-16-le"), "letter")


def test_a_key_that_is_there_twice_is_refused() -> None:
    text = write_document(WRITTEN).replace(b'"count": 7', b'"count": 7, "count": 8')
    with pytest.raises(DataError, match='"count" is there twice'):
        read_document(Letter, text, "letter")


def sparse(path: Path) -> None:
    """A file of 8 GB that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(1 << 33)


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "does not exist: needed a JSON object"),
    "a folder": (lambda path: path.mkdir(), "is no regular file: needed a JSON object"),
    "a pipe": (os.mkfifo, "is no regular file: needed a JSON object"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is no regular file: needed a JSON object"),
    "a link to nothing": (lambda path: path.symlink_to("gone"), "does not exist: needed a JSON object"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "does not exist: needed a JSON object"),
    "gigabytes": (sparse, "has 8,590 MB: needed a JSON object of at most 268 MB"),
    "a failing disk": (lambda path: path.symlink_to("/proc/self/mem"), "cannot be read .*: needed a JSON object"),
    "UTF-16": (lambda path: path.write_text("{}", encoding="utf-16"), "is no JSON"),
    "Latin-1": (lambda path: path.write_bytes(b'{"\xe9": 1}'), "is no JSON"),
    "deep brackets": (lambda path: path.write_text("[" * 100_000), "is no JSON"),
    "many digits": (lambda path: path.write_text('{"a": ' + "9" * 5000 + "}"), "is no JSON"),
    "a list": (lambda path: path.write_text("[{}]"), "list: needed a JSON object"),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_document_is_refused_at_once(tmp_path: Path, place: str) -> None:
    """Whatever lies there: nothing is waited for, and not more is read than a document has."""
    make, said = PLACES[place]
    make(tmp_path / "letter.json")
    with pytest.raises(DataError, match=said):
        read_object(tmp_path / "letter.json")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "letter.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_object(tmp_path / "letter.json") == {"a": 1}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a\nb\0\n", "line 2: a NUL byte"),
        (b"a\n" + b"x" * (1 << 24), "line 2: longer than 16,777,216 letters"),
        (b"a\xff\n", "byte 0xff is not UTF-8"),
        (codecs.BOM_UTF16_LE + b"a", "byte 0x61 is not UTF-16"),
        ("a\n".encode("utf-16-le"), "line 1: a NUL byte"),
    ],
)
def test_lines_that_are_no_text_are_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "rows.txt").write_bytes(data)
    with pytest.raises(DataError, match=said):
        list(read_lines(tmp_path / "rows.txt"))


def test_lines_come_without_their_ends_or_with_them(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_bytes(b"\xef\xbb\xbfa\r\n\nb\rc")
    assert list(read_lines(tmp_path / "rows.txt")) == ["a", "", "b\rc"]
    (tmp_path / "wide.txt").write_bytes("a\r\n\nb\rc".encode("utf-16"))
    assert list(read_lines(tmp_path / "wide.txt")) == ["a", "", "b\rc"]
    assert list(read_lines(tmp_path / "rows.txt", keep_ends=True)) == ["a\r\n", "\n", "b\r", "c"]


def test_an_error_names_a_few_faults() -> None:
    text = json.dumps(asdict(WRITTEN) | {"parts": [3] * 1000}).encode()
    with pytest.raises(DataError, match=r"item 0 .*item 1 .*item 2 is 3: needed an object$"):
        read_document(Letter, text, "letter")
