"""The model and the data that tasks start from, and whether the model is still the one that they were planned with."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from onnxslim_bert.calibration.tokenizer import DESCRIPTIONS
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.export.hugging_face import TOKENIZER_FILES
from onnxslim_bert.graph.files import file_sha256, model_bytes, model_files
from onnxslim_bert.job.data import Sources
from onnxslim_bert.zoo.store.opened import opened

Hash = Callable[[Path], str]  # sha256 of one file


class Given(NamedTuple):
    """A source: sha256 and bytes of the model, external data included, and sha256 over its tokenizer's files.

    legacy: whether these are of an older vocabulary, which transformers reads.
    """

    sha256: str
    nbytes: int
    tokenizer_sha256: str
    legacy: bool


def given(model: Path, tokenizer: Path | None, sha256_of: Hash = file_sha256) -> Given:
    """The model and its tokenizer: a folder or a file, None where it lies beside the model."""
    place = tokenizer or model.parent
    folder = place if place.is_dir() else place.parent
    whole = place if place.is_file() else folder / "tokenizer.json"
    names = TOKENIZER_FILES if whole.is_file() else (*TOKENIZER_FILES, *DESCRIPTIONS)
    found = sorted(file for file in {place, *(folder / name for name in names)} if file.is_file())
    return Given(
        _model_sha256(model, sha256_of),
        model_bytes(model),
        _hash([f"{file.name} {sha256_of(file)}" for file in found]),
        legacy=not whole.is_file() and any((folder / name).is_file() for name in DESCRIPTIONS),
    )


@contextlib.contextmanager
def unchanged(payload: Mapping[str, Any]) -> Iterator[Path]:
    """The file of the model that a task with this payload starts from.

    Raises ModelError or DataError when the model, or the tokenizer where the task has one, is not what the task was
    planned with: the result would lie under a key that is another's.
    """
    with opened(payload["source"]) as path:
        tokenizer = payload.get("tokenizer")
        found = given(path, tokenizer and Path(tokenizer))
        if found.sha256 != payload["source_sha256"]:
            raise ModelError(f"{payload['source']} has changed since the run began; run it again")
        if found.tokenizer_sha256 != payload.get("tokenizer_sha256", found.tokenizer_sha256):
            raise DataError(f"the tokenizer of {payload['source']} has changed since the run began; run it again")
        yield path


def sources_of(payload: dict[str, Any]) -> Sources:
    """The data of a task, as they were planned."""
    values = dict(payload["sources"])
    tokenizer = payload["tokenizer"] and Path(payload["tokenizer"])
    return replace(Sources(**{**values, "text_columns": tuple(values["text_columns"])}), tokenizer=tokenizer)


def _model_sha256(path: Path, sha256_of: Hash) -> str:
    """Over the hashes of all its files where it has external data."""
    hashes = [sha256_of(file) for file in model_files(path)]
    return hashes[0] if len(hashes) == 1 else _hash(hashes)


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
