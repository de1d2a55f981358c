"""The files that a task starts from: the model, its tokenizer, its data; and whether they are those of the plan."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from onnxslim_bert.calibration.load_tokenizer import DESCRIPTIONS
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.export.hugging_face import TOKENIZER_FILES
from onnxslim_bert.graph.files import file_sha256, model_files
from onnxslim_bert.job.data import Sources
from onnxslim_bert.zoo.store.opened import opened

Hash = Callable[[Path], str]  # sha256 of one file


class SourceFiles(NamedTuple):
    """What identifies a model of a zoo by its content.

    sha256, nbytes: of the model's file and its external data. tokenizer_sha256: over the tokenizer's files.
    legacy: the tokenizer is an older vocabulary file, which transformers reads.
    """

    sha256: str
    nbytes: int
    tokenizer_sha256: str
    legacy: bool


def source_files(model: Path, tokenizer: Path | None, sha256_of: Hash = file_sha256) -> SourceFiles:
    """Hash a model and its tokenizer, a folder or a file, None where it lies beside the model.

    A file that is no model is hashed like one: the job that opens it says what is wrong with it.
    """
    place = tokenizer or model.parent
    folder = place if place.is_dir() else place.parent
    whole = place if place.is_file() else folder / "tokenizer.json"
    names = TOKENIZER_FILES if whole.is_file() else (*TOKENIZER_FILES, *DESCRIPTIONS)
    found = sorted(file for file in {place, *(folder / name for name in names)} if file.is_file())
    try:
        files = model_files(model)
    except ModelError:
        files = [model]
    hashes = [sha256_of(file) for file in files]
    return SourceFiles(
        hashes[0] if len(hashes) == 1 else _hash(hashes),
        sum(file.stat().st_size for file in files),
        _hash([f"{file.name} {sha256_of(file)}" for file in found]),
        legacy=not whole.is_file() and any((folder / name).is_file() for name in DESCRIPTIONS),
    )


@contextlib.contextmanager
def unchanged(payload: Mapping[str, Any]) -> Iterator[Path]:
    """The model file that a task with this payload starts from.

    Raises ModelError when the model, and DataError when the tokenizer, is no longer the one that the task was planned
    with. Results are found by the hashes in the plan, so a result of other files would be taken for theirs.
    """
    with opened(payload["source"]) as path:
        tokenizer = payload.get("tokenizer")
        found = source_files(path, tokenizer and Path(tokenizer))
        if found.sha256 != payload["source_sha256"]:
            raise ModelError(f"{payload['source']} has changed since the run began; run it again")
        if found.tokenizer_sha256 != payload.get("tokenizer_sha256", found.tokenizer_sha256):
            raise DataError(f"the tokenizer of {payload['source']} has changed since the run began; run it again")
        yield path


def sources_of(payload: dict[str, Any]) -> Sources:
    """Which data a task reads, from its payload."""
    values = dict(payload["sources"])
    tokenizer = payload["tokenizer"] and Path(payload["tokenizer"])
    return replace(Sources(**{**values, "text_columns": tuple(values["text_columns"])}), tokenizer=tokenizer)


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
