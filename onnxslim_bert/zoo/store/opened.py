"""A model that is given as a path or a URL, as a file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from onnxslim_bert.errors import DataError, ModelError, StorageError
from onnxslim_bert.export.hugging_face import TOKENIZER_FILES
from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.zoo.store.storage import Storage


@contextlib.contextmanager
def opened(source: str) -> Iterator[Path]:
    """The model file that `source` names.

    A local path is itself. What a URL names is fetched into a temporary folder, gone in the end, with its external data
    and, where there are any, the tokenizer's files beside it. Raises ModelError for a URL without a model,
    StorageError for one that does not answer.
    """
    if "://" not in source:
        yield Path(source)
        return
    parent, _, base = source.rpartition("/")
    beside = Storage(parent)
    if (folder := beside.folder) is not None:
        yield folder / base
        return
    with scratch() as temporary:
        model = temporary / base
        _fetch(beside, base, model)
        for name in _external_files(model):
            (model.parent / name).parent.mkdir(parents=True, exist_ok=True)
            _fetch(beside, name, model.parent / name)
        for name in TOKENIZER_FILES:
            if beside.exists(name):
                beside.fetch(name, model.parent / name)
        yield model


def _fetch(beside: Storage, name: str, path: Path) -> None:
    try:
        beside.fetch(name, path)
    except (DataError, StorageError) as error:
        if isinstance(error, StorageError) and not isinstance(error.__cause__, FileNotFoundError):
            raise  # it may be read the next time
        raise ModelError(f"{beside.url}: no complete model: {error}") from None


def _external_files(model: Path) -> list[str]:
    """Names of the files in which the model keeps weights."""
    skeleton, _ = read_skeleton(model)
    entries = (entry for weight in skeleton.graph.initializer for entry in weight.external_data)
    return sorted({str(PurePosixPath(entry.value)) for entry in entries if entry.key == "location"})
