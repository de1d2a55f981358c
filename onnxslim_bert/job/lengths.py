"""Length buckets: one model file for each length, their weights stored once, and a manifest that says which to take.

    folder/model.data  model.32.onnx  model.64.onnx  model.128.onnx  manifest.json

For providers that take fixed shapes only. A text runs in the smallest bucket that holds its tokens, padded to it.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import onnx

from onnxslim_bert import __version__
from onnxslim_bert.arrays import Array
from onnxslim_bert.documents import read_object
from onnxslim_bert.errors import DataError, ModelError, OutputError, one_line
from onnxslim_bert.graph.files import file_sha256, write_atomically
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.graph.signature import fixed_axes, flat_shape
from onnxslim_bert.graph.wire import release
from onnxslim_bert.model.onnx_model import Model

MANIFEST, DATA = "manifest.json", "model.data"
SCHEMA = 1
PAGE = 4096  # where external data should start, so that it can be mapped (onnx.proto, external_data)


@dataclass(frozen=True)
class Buckets:
    """What manifest.json of a folder of length buckets holds.

    schema: the version of this form. onnxslim_bert: the version of the program that wrote it. lengths: the name of the
    model file for each number of tokens, ascending. files: sha256 in hexadecimal of every other file of the folder.
    """

    schema: int
    onnxslim_bert: str
    lengths: dict[int, str]
    files: dict[str, str]


def write_buckets(folder: Path, models: Iterable[tuple[int, Model]]) -> Buckets:
    """Write one file for each (length, model) to the new `folder`, which is the caller's to remove when this fails.

    The same models give the same bytes. One model is held at a time when `models` makes them one by one. Raises
    OutputError, and ModelError for a model of another length or one that is not valid ONNX.
    """
    lengths: dict[int, str] = {}
    try:
        folder.mkdir()
        with (folder / DATA).open("wb") as data:
            shared = _Shared(data)
            for length, model in models:
                _check_length(model, length, lengths)
                lengths[length] = f"model.{length}.onnx"
                _write(folder / lengths[length], model, shared)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); nothing was changed") from error
    if not lengths:
        raise OutputError(f"{folder}: no lengths were given; name at least one")
    sums = {name: file_sha256(folder / name) for name in (DATA, *(lengths[n] for n in sorted(lengths)))}
    buckets = Buckets(SCHEMA, __version__, {n: lengths[n] for n in sorted(lengths)}, sums)
    _write_manifest(folder, buckets)
    return buckets


def renew_manifest(folder: Path) -> None:
    """Hash the files of `folder` again, after something was added to them. Raises ModelError and OutputError."""
    held = _read_manifest(folder / MANIFEST)
    _write_manifest(folder, replace(held, files={name: file_sha256(folder / name) for name in held.files}))


def _write_manifest(folder: Path, buckets: Buckets) -> None:
    text = json.dumps(asdict(buckets), indent=2) + "\n"
    write_atomically(folder / MANIFEST, [text.encode()], overwrite=True)


def _read_manifest(path: Path) -> Buckets:
    try:
        held = read_object(path)
        if held["schema"] != SCHEMA:
            raise ModelError(f"{path}: schema {held['schema']}, and this version reads {SCHEMA}")
        lengths = {int(n): str(file) for n, file in held["lengths"].items()}
        return Buckets(SCHEMA, held["onnxslim_bert"], dict(sorted(lengths.items())), dict(held["files"]))
    except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not a manifest of length buckets ({one_line(error)})") from error


class _Shared:
    """The file model.data, which all lengths share: each weight is written once, however many models hold it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.offsets: dict[bytes, int] = {}

    def place(self, tensor: onnx.TensorProto, values: Array) -> None:
        """Write `values` unless the same bytes are in the file, and let `tensor` refer to where they are."""
        content = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        key = hashlib.sha256(content).digest()
        if key not in self.offsets:
            aligned = PAGE if len(content) >= PAGE else 64
            self.file.write(bytes(-self.file.tell() % aligned))
            self.offsets[key] = self.file.tell()
            self.file.write(content)
        del tensor.external_data[:]
        for name, value in (("location", DATA), ("offset", self.offsets[key]), ("length", len(content))):
            tensor.external_data.add(key=name, value=str(value))


def _write(path: Path, model: Model, shared: _Shared) -> None:
    skeleton, weights = model.skeleton()
    for tensor in skeleton.graph.initializer:
        if tensor.name in weights:
            shared.place(tensor, weights[tensor.name])
    shared.file.flush()
    os.fsync(shared.file.fileno())
    write_atomically(path, [skeleton.SerializeToString(deterministic=True)], overwrite=False)
    release(weights.values())
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the rewritten graph is not valid ONNX: {in_words(error)}") from error


def _check_length(model: Model, length: int, seen: Iterable[int]) -> None:
    fixed = fixed_axes(flat_shape(tensor.shape or (), tensor.dtype) for tensor in model.graph.inputs)[1]
    if fixed != length:
        found = "any length" if fixed is None else f"{fixed} tokens"
        raise ModelError(f"the model for {length} tokens takes {found}; fix its shapes to {length} first")
    if length in seen:
        raise OutputError(f"length {length} is given twice")


def check_place(folder: Path, overwrite: bool) -> None:
    """Raise OutputError when a folder of buckets cannot be written there."""
    if not folder.parent.is_dir():
        raise OutputError(f"{folder}: no folder {folder.parent}; make it first")
    if not folder.exists():
        return
    if not overwrite:
        raise OutputError(f"{folder} exists; give another output or --force to overwrite it")
    try:
        ours = {MANIFEST, *_read_manifest(folder / MANIFEST).files}
    except ModelError as error:
        raise OutputError(f"{folder} is no folder of length buckets; give another output ({error})") from error
    other = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if other:
        raise OutputError(f"{folder} holds {other[0]!r} besides length buckets; give another output")
