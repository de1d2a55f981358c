"""Readers of data files that are no plain tables: CoNLL's tagged words, and SQuAD's questions on passages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxslim_bert.documents import read_lines
from onnxslim_bert.errors import DataError


def read_conll(path: Path) -> Mapping[str, Sequence[Any]]:
    """The sentences of a CoNLL file, as the columns `words` and `tags`, with a list for each sentence.

    The file has a word a line, with its tag in the last column, and blank lines between sentences. Raises DataError for
    a line without a tag.
    """
    words: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    for number, line in enumerate(read_lines(path), 1):
        cells = line.split()
        if not cells or cells[0] == "-DOCSTART-":
            if words[-1]:
                words.append([])
                tags.append([])
        elif len(cells) < 2:
            raise DataError(f"{path}, line {number}: one column: needed a word and its tag")
        else:
            words[-1].append(cells[0])
            tags[-1].append(cells[-1])
    return {"words": [each for each in words if each], "tags": [each for each in tags if each]}


def read_squad(path: Path, document: Any) -> Mapping[str, Sequence[Any]]:
    """The questions of SQuAD's JSON (1.1 or 2.0, https://rajpurkar.github.io/SQuAD-explorer), as columns.

    `question` and `context` are texts; `answers` is a list of texts for each question, empty where the passage holds no
    answer. Raises DataError, which names `path`, for a document of another form.
    """
    columns: dict[str, list[Any]] = {"question": [], "context": [], "answers": []}
    try:
        for paragraph in (each for article in document["data"] for each in article["paragraphs"]):
            for asked in paragraph["qas"]:
                columns["question"].append(asked["question"])
                columns["context"].append(paragraph["context"])
                columns["answers"].append([answer["text"] for answer in asked.get("answers", [])])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not SQuAD ({type(error).__name__}: {error}): needed data, paragraphs, qas") from error
    return columns
