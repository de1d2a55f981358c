"""One metadata entry at the end of a model file, written after the rest of the file has been judged.

A serialized message may be extended by one more entry of a repeated field: concatenation merges
(https://protobuf.dev/programming-guides/encoding/#last-one-wins). So an entry of metadata_props is appended without
touching the weights, and what was judged is the file without it, byte for byte.
"""

import hashlib
import os
from pathlib import Path

import onnx

from onnxslim_bert.errors import OutputError
from onnxslim_bert.graph.files import model_files
from onnxslim_bert.graph.wire import read_skeleton

CHUNK = 1 << 20


def write_trailer(path: Path, key: str, text: str) -> None:
    """End the file with the metadata entry `key`: `text`, in place of one of that key. Raises OutputError."""
    end = content_end(path, key)
    try:
        with path.open("r+b") as file:
            file.truncate(end)
            file.seek(end)
            file.write(_entry(key, text))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); give another output") from error


def content_end(path: Path, key: str) -> int:
    """The number of bytes before the entry `key` at the file's end; all bytes where it ends with something else."""
    size = path.stat().st_size
    held = [entry.value for entry in read_skeleton(path)[0].metadata_props if entry.key == key]
    if not held:
        return size
    entry = _entry(key, held[-1])
    with path.open("rb") as file:
        file.seek(max(0, size - len(entry)))
        return size - len(entry) if file.read() == entry else size


def content_sha256(path: Path, key: str) -> str:
    """sha256 of the file before its entry `key`, then of its external data; hexadecimal."""
    digest, (_, *others) = hashlib.sha256(), model_files(path)
    left = content_end(path, key)
    with path.open("rb") as file:
        while left and (chunk := file.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    for other in others:
        with other.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _entry(key: str, text: str) -> bytes:
    """A model of that metadata entry and nothing else, serialized."""
    model = onnx.ModelProto()
    model.metadata_props.add(key=key, value=text)
    return bytes(model.SerializeToString(deterministic=True))
