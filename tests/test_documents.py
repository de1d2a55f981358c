"""Documents come back as what they were written from, and foreign ones are refused with the place of the fault."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from onnxslim_bert.arrays import Array
from onnxslim_bert.documents import plain, read_document, structured, write_document
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


def test_an_error_names_a_few_faults() -> None:
    text = json.dumps(asdict(WRITTEN) | {"parts": [3] * 1000}).encode()
    with pytest.raises(DataError, match=r"item 0 .*item 1 .*item 2 is 3: needed an object$"):
        read_document(Letter, text, "letter")
