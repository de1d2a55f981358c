"""A reader of SQuAD's questions on passages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxslim_bert.errors import DataError


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
