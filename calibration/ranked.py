"""Readers of rows that are ranked: passages for a query, in tables, in lists, and in folders as BEIR lays them out.

Thakur et al. 2021, https://arxiv.org/abs/2104.08663
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onnxslim_bert.calibration.files import Columns, read_columns
from onnxslim_bert.documents import read_lines
from onnxslim_bert.errors import DataError, shown

CORPUS, QUERIES = "corpus.jsonl", "queries.jsonl"
SPLITS = {"calibration": ("train", "dev", "test"), "evaluation": ("test", "dev", "train")}
QUERY_NAMES = ("query", "anchor")
POSITIVE, NEGATIVE = ("positive", "positives", "pos"), ("negative", "negatives", "neg", "negative_1")
# Documents without a judgement that a query is paired with, for models that read pairs: 20 of them make a list to rank.
FILL = {"calibration": 1, "evaluation": 20}


class Ranked(NamedTuple):
    """Pairs of a query and a passage [rows], how relevant each is [rows], and all passages that can be found.

    own: of queries that are passages, too, by their ids: the passage that such a query must not find, by its text.
    """

    split: str
    texts: tuple[tuple[str, str], ...]
    relevance: tuple[float, ...]
    pool: tuple[str, ...]
    own: dict[str, str]


def read_folder(folder: Path, purpose: str) -> Ranked:
    """Read corpus.jsonl, queries.jsonl and the judgements: qrels/test.tsv (train.tsv to calibrate on), or qrels.tsv.

    Judgements are `query-id corpus-id score`, with or without that header, or TREC's four columns. A query does not
    find the passage of its own id, as in BEIR's evaluation (Thakur et al. 2021, https://arxiv.org/abs/2104.08663): in
    ArguAna queries are passages themselves. Raises DataError.
    """
    passages = _by_id(folder / CORPUS, titled=True)
    asked = _by_id(folder / QUERIES)
    judgements = _judgements_file(folder, purpose)
    rows: dict[tuple[str, str], float] = {}
    for number, query, passage, score in _judgements(judgements):
        for known, name, where in ((asked, query, QUERIES), (passages, passage, CORPUS)):
            if name not in known:
                raise DataError(
                    f"{judgements}, line {number}: {where} has no _id {shown(name)}: needed one that it has"
                )
        rows[asked[query], passages[passage]] = score
    pool = tuple(dict.fromkeys(passages.values()))
    own = {text: passages[name] for name, text in asked.items() if name in passages}
    rows = {pair: score for pair, score in rows.items() if own.get(pair[0]) != pair[1]}
    for query in dict.fromkeys(query for query, _ in rows):
        seed = int.from_bytes(hashlib.sha256(query.encode()).digest()[:8], "big")
        for place in np.random.default_rng(seed).permutation(len(pool))[: FILL[purpose]]:
            if pool[place] != own.get(query):
                rows.setdefault((query, pool[place]), 0.0)
    # the passages of a query side by side, whatever the order of the file
    order = {query: place for place, query in enumerate(dict.fromkeys(query for query, _ in rows))}
    texts = tuple(sorted(rows, key=lambda pair: order[pair[0]]))
    return Ranked(judgements.stem, texts, tuple(rows[pair] for pair in texts), pool, own)


def is_folder(path: Path) -> bool:
    """Whether the folder is laid out as BEIR's are."""
    return (path / CORPUS).is_file() and (path / QUERIES).is_file()


def in_pairs(columns: Columns, source: str) -> Columns:
    """Rows of a query with lists of passages, `positive` and `negative`, as rows of one pair each with a `label`.

    Any other columns are given back as they are. Raises DataError for lists of anything but texts.
    """
    query, positive, negative = (_named(columns, names) for names in (QUERY_NAMES, POSITIVE, NEGATIVE))
    if query is None or positive is None or negative is None or not _is_list(columns[positive]):
        return columns
    found: dict[str, list[Any]] = {"query": [], "passage": [], "label": []}
    rows = zip(columns[query], columns[positive], columns[negative], strict=True)
    for number, (asked, *sides) in enumerate(rows, 1):
        for label, passages in zip((1, 0), sides, strict=True):
            if not isinstance(passages, list):
                raise DataError(f"{source}, row {number}: {shown(passages)}: needed a list of passages")
            for passage in passages:
                for column, value in zip(found.values(), (asked, passage, label), strict=True):
                    column.append(value)
    return found


def triplets(columns: Columns) -> tuple[str, str, str] | None:
    """The columns of triplets: of a text, of one that is like it, and of one that is not; None without them."""
    query, positive, negative = (_named(columns, names) for names in (QUERY_NAMES, POSITIVE, NEGATIVE))
    if query is None or positive is None or negative is None:
        return None
    return query, positive, negative


def _named(columns: Columns, names: Sequence[str]) -> str | None:
    by_case = {column.lower(): column for column in columns}
    return next((by_case[name] for name in names if name in by_case), None)


def _is_list(values: Sequence[Any]) -> bool:
    return any(isinstance(value, list) for value in values)


def _by_id(file: Path, titled: bool = False) -> dict[str, str]:
    """The texts of a file by their `_id`; a title comes before its text."""
    columns = read_columns(file)
    ids, texts = (columns.get(name) for name in ("_id", "text"))
    if ids is None or texts is None:
        raise DataError(f"{file}: found {', '.join(columns)}: needed _id and text in every line")
    titles = columns.get("title") if titled else None
    found: dict[str, str] = {}
    for number, (name, text, title) in enumerate(zip(ids, texts, titles or [""] * len(ids), strict=True), 1):
        if not isinstance(name, str | int) or not isinstance(text, str):
            raise DataError(f"{file}, line {number}: needed an _id and a text")
        found[str(name)] = f"{title} {text}".strip() if isinstance(title, str) else text
    return found


def _judgements_file(folder: Path, purpose: str) -> Path:
    splits = [Path("qrels") / f"{split}.tsv" for split in SPLITS[purpose]]
    tried = [*splits, Path("qrels.tsv"), Path("qrels.txt")]
    for name in tried:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: no judgements: needed {', '.join(map(str, tried))}")


def _judgements(file: Path) -> list[tuple[int, str, str, float]]:
    """(line, query, passage, relevance) of each line; a first line without a number is a header."""
    found: list[tuple[int, str, str, float]] = []
    for number, line in enumerate(read_lines(file), 1):
        cells = line.split("\t") if "\t" in line else line.split()
        if not cells:
            continue
        chosen = [cells[0], *cells[-2:]] if len(cells) in (3, 4) else []
        try:
            query, passage, score = chosen
            found.append((number, query.strip(), passage.strip(), float(score)))
        except ValueError as error:
            if number == 1 and chosen:
                continue
            raise DataError(
                f"{file}, line {number}: {shown(line)}: needed a query's id, a passage's and a number"
            ) from error
    if not found or not all(np.isfinite(score) for *_, score in found):
        raise DataError(f"{file}: needed judgements with a finite number each")
    return found
