"""Read a data file: columns of text and labels, or ready model inputs."""

import csv
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.conll import are_tagged, read_conll
from onnxslim_bert.calibration.declared import coded
from onnxslim_bert.calibration.parquet import read_parquet
from onnxslim_bert.calibration.structured import read_squad
from onnxslim_bert.documents import LONGEST_LINE, read_json, read_lines
from onnxslim_bert.errors import DataError, one_line

MOST_UNPACKED = 1 << 28  # bytes of a packed file, or 200 times its own where that is more
Columns = Mapping[str, Sequence[Any]]
QUOTED = re.compile(r'"(?:[^"]|"")*"')
FASTTEXT = "__label__"  # before each label of a line, in fastText's files
SAID_MARK = re.compile(r"sep=(.)", re.IGNORECASE)  # a first line by which spreadsheets say what parts cells


def read_columns(path: Path) -> Columns:
    """The columns of a tsv, csv, jsonl, json, txt, parquet or CoNLL file, by name, all of one length of at least 1.

    Values are what the format holds: strings in tsv, csv and txt, also numbers and None in the others.
    A txt file has one column, `text`; one of words with tags of entities is read as CoNLL, a tsv file too. Raises
    DataError with the line number when a row is malformed.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown file type '{path.suffix}': needed one of {', '.join((*READERS, '.npz'))}")
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: no regular file: needed a file of rows")
    try:
        tagged = path.suffix.lower() in (".tsv", ".txt") and are_tagged(path)
        columns = read_conll(path) if tagged else reader(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not columns or not next(iter(columns.values())):
        raise DataError(f"{path}: no rows: needed at least one row of data")
    return columns


def read_feeds(path: Path) -> dict[str, Array]:
    """The arrays of an npz file by name, each [rows, ...] of finite numbers. Pickled objects are refused."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: no regular file: needed an npz of plain arrays")
    try:
        _check_archive(path)
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("one array, not an archive of named arrays")
        with archive:
            feeds = {name: archive[name] for name in archive.files}
    # zipfile raises RuntimeError where a file is encrypted, NotImplementedError where it is packed otherwise
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        MemoryError,
        KeyError,
    ) as error:
        raise DataError(f"{path}: not an npz of plain arrays: {one_line(error)}") from error
    if plain := [name for name, values in feeds.items() if not isinstance(values, np.ndarray)]:
        raise DataError(f"{path}: {plain[0]!r} is no array: needed an npz of plain arrays")
    for name, values in feeds.items():
        if values.dtype.kind not in "biuf" or values.ndim == 0 or 0 in values.shape[1:]:
            raise DataError(f"{path}: '{name}' is {values.dtype} {list(values.shape)}: needed numbers [rows, ...]")
        if not np.isfinite(values).all():
            raise DataError(f"{path}: '{name}' holds NaN or inf: needed finite numbers")
    counts = {name: len(values) for name, values in feeds.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise DataError(f"{path}: rows are {counts}: needed arrays with the same number of rows, at least one")
    return feeds


def _check_archive(path: Path) -> None:
    """Raise ValueError for a small archive that unpacks to gigabytes."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > most_unpacked(path):
        raise ValueError(f"{unpacked / 1e6:,.0f} MB when unpacked")


def most_unpacked(path: Path) -> int:
    """Bytes that the packed file at `path` may hold."""
    return max(MOST_UNPACKED, 200 * path.stat().st_size)


def _tsv(path: Path) -> Columns:
    # GLUE's files quote nothing, so a quotation mark is text and a tab always ends a cell; but for those of a header.
    lines = read_lines(path)
    header = next(lines, "")
    if all(QUOTED.fullmatch(name) for name in header.split("\t")):
        return _csv(path)
    cells = enumerate(chain([header], lines), 1)
    return _table(path, ((number, line.split("\t")) for number, line in cells if line))


def _csv(path: Path) -> Columns:
    lines = read_lines(path, keep_ends=True)
    header = next(lines, "")
    said = SAID_MARK.fullmatch(header.rstrip("\r\n"))
    if said:
        header = next(lines, "")
    # Spreadsheets whose decimals have a comma part cells by semicolons.
    bare = QUOTED.sub("", header)
    mark = said[1] if said else next((each for each in ",;\t|" if each in bare), ",")
    reader = csv.reader(chain([header], lines), delimiter=mark, strict=True)
    most = csv.field_size_limit(LONGEST_LINE)
    try:
        return _table(path, ((reader.line_num, cells) for cells in reader if cells))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
    finally:
        csv.field_size_limit(most)


def _table(path: Path, rows: Iterable[tuple[int, list[str]]]) -> Columns:
    """Columns named by the first row; `rows` are (line number, cells)."""
    numbered = iter(rows)
    _, header = next(numbered, (1, []))
    header = [name.strip() for name in header]
    if len(set(header)) != len(header):
        raise DataError(f"{path}, line 1: a column name occurs twice in {header}: needed distinct names")
    columns: dict[str, list[str]] = {name: [] for name in header}
    for number, cells in numbered:
        if len(cells) != len(header):
            raise DataError(f"{path}, line {number}: {len(cells)} cells: needed {len(header)}, as in the first line")
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    return columns


def _jsonl(path: Path) -> Columns:
    return _objects((f"{path}, line {number}", row) for number, row in _parsed(path))


def _parsed(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: not JSON: {one_line(error)}") from error


def _json(path: Path) -> Columns:
    """A list of objects, alone or as the `data` or `rows` of one object, as data sets of the hub are saved; columns as
    the lists of one object; or SQuAD's form."""
    document = read_json(path, "JSON of SQuAD, or a list of objects")
    rows = document.get("data", document.get("rows")) if isinstance(document, dict) else document
    if rows is None and document and all(isinstance(column, list) for column in document.values()):
        if len({*map(len, document.values())}) == 1:
            return {str(name): column for name, column in document.items()}
        raise DataError(f"{path}: found the lists {', '.join(document)}: needed columns of one length, or one list")
    if isinstance(rows, list) and all(isinstance(row, dict) and isinstance(row.get("row"), dict) for row in rows):
        rows = [row["row"] for row in rows]  # as the hub's server pages through them
    if isinstance(rows, list) and not any(isinstance(row, dict) and "paragraphs" in row for row in rows):
        columns = _objects((f"{path}, object {number}", row) for number, row in enumerate(rows, 1))
        return coded(columns, document.get("features") if isinstance(document, dict) else None)
    return read_squad(path, document)


def _objects(rows: Iterable[tuple[str, Any]]) -> Columns:
    """Columns of objects with a place for each; None where one lacks a key."""
    columns: dict[str, list[Any]] = {}
    for count, (place, row) in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{place}: {type(row).__name__}: needed one JSON object a row")
        for name in [name for name in row if name not in columns]:
            columns[name] = [None] * count
        for name, column in columns.items():
            column.append(row.get(name))
    return columns


def _txt(path: Path) -> Columns:
    lines = [line for line in read_lines(path) if line.strip()]
    if lines and all(line.startswith(FASTTEXT) for line in lines):
        cells = [line.split() for line in lines]
        counts = [sum(1 for _ in takewhile(lambda cell: cell.startswith(FASTTEXT), row)) for row in cells]
        labels = [[cell.removeprefix(FASTTEXT) for cell in row[:n]] for row, n in zip(cells, counts, strict=True)]
        one = max(counts) == 1
        texts = [" ".join(row[count:]) for row, count in zip(cells, counts, strict=True)]
        return {"text": texts, "label": [row[0] for row in labels] if one else labels}
    return {"text": lines}


def _parquet(path: Path) -> Columns:
    return read_parquet(path, most_unpacked(path))


READERS: Mapping[str, Callable[[Path], Columns]] = {
    ".tsv": _tsv,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".txt": _txt,
    ".parquet": _parquet,
    **dict.fromkeys((".conll", ".conllu", ".iob", ".iob2", ".bio", ".iobes", ".bioes"), read_conll),
    ".json": _json,
}
