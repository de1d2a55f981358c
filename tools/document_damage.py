"""Ways to damage a document: its bytes and lines, one of its values, the archive that it is, or what lies at its place.

`damaged` draws one for the kind of the document; `is_none` is the other side: whether a reader must refuse the result.
"""

import codecs
import io
import json
import os
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["json", "jsonl", "toml", "text", "npz", "bytes"]
Change = Callable[[bytes, np.random.Generator], bytes]
MANY, DEEP = 400, 5000  # digits of a number, brackets within each other
LONG_LINE = 3_000_000
# Values that stand where another one was, as JSON and TOML write them; most are of a wrong type, size or spelling.
VALUES = (
    *("-1", "0", "1", "1.0", "1.5", "-0.0", "1e400", "-1e400", "NaN", "nan", "Infinity", "inf", "true", "null"),
    *("9" * MANY, "9" * 5000, "9223372036854775808", "1000000000000", '""', '" "', '"x"', '"-1"', '"nan"', "[]", "{}"),
    *('"\\u0000"', '"\\ud800"', '"\\u001b[31m"', '"\\u202e"', '"[bold]"', '"a\\nb"', '"../../../etc/passwd"'),
    *('"/dev/zero"', '"' + "x" * 70_000 + '"', "[" * DEEP + "]" * DEEP, '{"a": ' * DEEP + "0" + "}" * DEEP),
    *("[null]", '[""]', "[[]]", '{"": 0}', '{"0": "x", "2": "y"}', '{"x": "y"}', '["a", "b"]', "[1e400]"),
)
WORDS = ("", "-", "-1", "1.0", "nan", "inf", "1e400", "9" * MANY, "\x1b[31m", "\u202e", "[bold]", "'", "\ufeff", "٣")


def damaged(path: Path, kind: Kind, rng: np.random.Generator, *, in_place: bool = False) -> str:
    """Damage the document at `path` in one way that `rng` draws; returns what was done, in words.

    in_place: it stays a file; otherwise a folder, a pipe or nothing may stand there instead.
    """
    if rng.random() < 0.12 and not in_place:
        name = str(rng.choice(list(PLACES)))
        path.unlink()
        PLACES[name](path)
        return name
    changes: Mapping[str, Change] = {**BYTES, **OF_KIND.get(kind, {})}
    own = sorted(OF_KIND.get(kind, {}))
    name = str(rng.choice(own)) if own and rng.random() < 0.6 else str(rng.choice(sorted(changes)))
    path.write_bytes(changes[name](path.read_bytes(), rng))
    return name


def is_none(path: Path, kind: Kind) -> bool:
    """Whether what lies at `path` is certainly no document of its kind, so that a command that reads it must refuse."""
    if not path.exists():
        return False  # what is not there may be optional
    if not path.is_file() or path.stat().st_size > 1 << 32:
        return True
    try:
        data = path.read_bytes()
    except OSError:
        return True
    try:
        if kind == "npz":
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return not all(arrays[name].dtype.kind in "biuf" for name in arrays.files)
        if kind == "bytes":
            return not data and path.suffix != ".sqlite"  # an empty one is a database of nothing
        wide = kind in ("text", "jsonl") and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if wide else "utf-8-sig")  # rows, which spreadsheets save so
        if kind == "json":
            return not isinstance(json.loads(text), dict)
        if kind == "toml":
            tomllib.loads(text)
        lines = [line for line in text.split("\n") if line.strip()]
        if kind == "jsonl":
            return not lines or not all(isinstance(json.loads(line), dict) for line in lines)
        return not lines or "\0" in text
    except Exception:  # whatever the readers raise
        return True


def altered(text: str, rng: np.random.Generator) -> str:
    """A command-line text with one of its words, numbers or signs changed. It holds no NUL, as arguments cannot."""
    pieces = _pieces(text.encode())
    where = int(rng.integers(len(pieces)))
    start, end = pieces[where]
    word = str(rng.choice([*WORDS, "x" * 5000, "{" * 500, "," * 500, "@" * 50, text, text[::-1], "{}", "=", "}", "?"]))
    data = text.encode()
    return (data[:start] + word.encode() + data[end:]).decode()


def _pieces(data: bytes) -> list[tuple[int, int]]:
    """Where words and numbers, and what is between them, begin and end."""
    cuts = [0]
    for place in range(1, len(data)):
        before, here = (chr(data[at]).isalnum() or data[at] in b"-_.@" for at in (place - 1, place))
        if before != here:
            cuts.append(place)
    return list(zip(cuts, [*cuts[1:], len(data)], strict=True))


def _somewhere(data: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(len(data) + 1))


def _insert(what: bytes) -> Change:
    def change(data: bytes, rng: np.random.Generator) -> bytes:
        place = _somewhere(data, rng)
        return data[:place] + what + data[place:]

    return change


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(max(len(data), 1), size=int(rng.integers(1, 9))):
        if data:
            changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _line(edit: Callable[[list[bytes], int], None]) -> Change:
    def change(data: bytes, rng: np.random.Generator) -> bytes:
        lines = data.split(b"\n")
        edit(lines, int(rng.integers(len(lines))))
        return b"\n".join(lines)

    return change


def _swap(lines: list[bytes], place: int) -> None:
    lines[0], lines[place] = lines[place], lines[0]


def _word(data: bytes, rng: np.random.Generator) -> bytes:
    pieces = _pieces(data[:200_000])
    start, end = pieces[int(rng.integers(len(pieces)))]
    return data[:start] + str(rng.choice(WORDS)).encode() + data[end:]


BYTES: Mapping[str, Change] = {
    "empty": lambda data, rng: b"",
    "cut off": lambda data, rng: data[: _somewhere(data, rng)],
    "a few bits flipped": _flip,
    "random bytes": lambda data, rng: rng.bytes(len(data)),
    "zeros": lambda data, rng: bytes(len(data)),
    "NUL inside": _insert(b"\0"),
    "no UTF-8 inside": _insert(b"\xff\xfe"),
    "an escape inside": _insert(b"\x1b[31m"),
    "a line end inside": _insert(b"\r"),
    "a byte order mark": lambda data, rng: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data, rng: data.decode("utf-8", "replace").encode("utf-16"),
    "UTF-16 without a mark": lambda data, rng: data.decode("utf-8", "replace").encode("utf-16-le"),
    "Latin-1": lambda data, rng: data + "\né".encode("latin-1"),
    "CRLF": lambda data, rng: data.replace(b"\n", b"\r\n"),
    "a very long line": _insert(b"x" * LONG_LINE),
    "deep brackets": lambda data, rng: b"[" * 200_000,
    "deep objects": lambda data, rng: b'{"a":' * 200_000,
    "twice": lambda data, rng: data + data,
    "fifty times": lambda data, rng: data * 50,
    "a line twice": _line(lambda lines, place: lines.insert(place, lines[place])),
    "a line gone": _line(lambda lines, place: lines.__delitem__(place)),
    "two lines exchanged": _line(_swap),
    "a word changed": _word,
}


def _json_value(data: bytes, rng: np.random.Generator) -> bytes:
    return _edited(data, rng, lambda holder, key, raw: holder.__setitem__(key, raw))


def _json_gone(data: bytes, rng: np.random.Generator) -> bytes:
    return _edited(data, rng, lambda holder, key, raw: holder.__delitem__(key))


def _json_key(data: bytes, rng: np.random.Generator) -> bytes:
    def rename(holder: Any, key: Any, raw: str) -> None:
        if isinstance(holder, dict):
            holder[str(rng.choice([*WORDS, "x" * 70_000]))] = holder.pop(key)

    return _edited(data, rng, rename)


def _json_grown(data: bytes, rng: np.random.Generator) -> bytes:
    def grow(holder: Any, key: Any, raw: str) -> None:
        holder[key] = [holder[key]] * 20_000

    return _edited(data, rng, grow)


def _json_twice(data: bytes, rng: np.random.Generator) -> bytes:
    """A key of the outermost object twice, with another value."""
    keys = list(_tree(data)) or [""]
    again = json.dumps(str(rng.choice(keys)))
    return data.rstrip().removesuffix(b"}") + f", {again}: {rng.choice(VALUES)}}}".encode()


def _edited(data: bytes, rng: np.random.Generator, edit: Callable[[Any, Any, str], None]) -> bytes:
    """JSON with one of its places, at any depth, changed by edit(what holds it, its key or index, a hostile value)."""
    tree, mark = _tree(data), "@@here@@"
    places = list(_places(tree))
    if not places:
        return data
    holder, key = places[int(rng.integers(len(places)))]
    edit(holder, key, mark)
    return json.dumps(tree).replace(json.dumps(mark), str(rng.choice(VALUES))).encode()


def _tree(data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    return found if isinstance(found, dict) else {}


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) of a JSON value; of long lists and objects the first items alone."""
    items = list(tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ())
    for key, value in items[:40]:
        yield tree, key
        yield from _places(value)


def _one_line(change: Change) -> Change:
    """`change` of one line of JSON lines."""

    def of_line(data: bytes, rng: np.random.Generator) -> bytes:
        lines = data.rstrip(b"\n").split(b"\n")
        place = int(rng.integers(len(lines)))
        lines[place] = change(lines[place], rng)
        return b"\n".join(lines) + b"\n"

    return of_line


def _toml_value(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.split(b"\n")
    given = [place for place, line in enumerate(lines) if b"=" in line]
    place = int(rng.choice(given))
    lines[place] = lines[place].partition(b"=")[0] + b"= " + str(rng.choice(VALUES)).replace(": ", " = ").encode()
    return b"\n".join(lines)


def _toml_key(data: bytes, rng: np.random.Generator) -> bytes:
    keys = ("a." * 3000 + "a = 1", "[" * 300, "x = 1", '"" = 1', '"\\u001b[31m" = 1', "[models]", "[recipes.int8]")
    return _line(lambda lines, place: lines.insert(place, str(rng.choice(keys)).encode()))(data, rng)


def _npz(edit: Callable[[dict[str, Any]], Any]) -> Change:
    """An archive of arrays, some of them changed."""

    def change(data: bytes, rng: np.random.Generator) -> bytes:
        with np.load(io.BytesIO(data)) as found:
            arrays: dict[str, Any] = {name: found[name] for name in found.files}
        name = str(rng.choice(sorted(arrays)))
        part = {name: arrays[name]}
        edit(part)
        file = io.BytesIO()
        np.savez(file, **{**{key: arrays[key] for key in arrays if key != name}, **part})
        return file.getvalue()

    return change


def _each(edit: Callable[[Any], Any]) -> Change:
    return _npz(lambda part: part.update({name: edit(values) for name, values in part.items()}))


def _zipped(edit: Callable[[zipfile.ZipFile], None]) -> Change:
    def change(data: bytes, rng: np.random.Generator) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            edit(archive)
        return file.getvalue()

    return change


def _bomb(archive: zipfile.ZipFile) -> None:
    with archive.open("input_ids.npy", "w", force_zip64=True) as entry:
        for _ in range(300):
            entry.write(bytes(1 << 20))


def _huge_shape(archive: zipfile.ZipFile) -> None:
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000, 9), }".ljust(117) + b"\n"
    archive.writestr("input_ids.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def _encrypted(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            changed[at + place] |= 1
            at = data.find(mark, at + 4)
    return bytes(changed)


OF_KIND: Mapping[Kind, Mapping[str, Change]] = {
    "json": {
        "another value": _json_value,
        "a value gone": _json_gone,
        "another key": _json_key,
        "a list of many": _json_grown,
        "a key twice": _json_twice,
    },
    "jsonl": {
        "another value": _one_line(_json_value),
        "a value gone": _one_line(_json_gone),
        "another key": _one_line(_json_key),
        "a key twice": _one_line(_json_twice),
    },
    "toml": {"another value": _toml_value, "another key": _toml_key},
    "npz": {
        "encrypted": _encrypted,
        "a bomb": _zipped(_bomb),
        "a huge shape": _zipped(_huge_shape),
        "no arrays": _zipped(lambda archive: archive.writestr("readme", "x")),
        "a pickled object": _each(lambda values: np.array([{}], object)),
        "texts": _each(lambda values: values.astype(str)),
        "complex numbers": _each(lambda values: values.astype(np.complex64)),
        "NaN": _each(lambda values: np.where(values == values.max(), np.nan, values)),
        "one number": _each(lambda values: values.reshape(-1)[0]),
        "no rows": _each(lambda values: values[:0]),
        "a row fewer": _each(lambda values: values[1:]),
        "an axis more": _each(lambda values: values[..., None]),
        "far numbers": _each(lambda values: values + 2**40),
        "negative numbers": _each(lambda values: -values - 1),
        "another name": _npz(lambda part: part.update({"\x1b[31m": part.pop(next(iter(part)))})),
        "an array fewer": _npz(lambda part: part.clear()),
    },
}


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 33)


PLACES: Mapping[str, Callable[[Path], object]] = {
    "not there": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a file that fails when it is read": lambda path: path.symlink_to("/proc/self/mem"),
    "8 GB of nothing": _sparse,
}
