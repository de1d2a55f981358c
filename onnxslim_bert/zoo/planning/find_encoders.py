"""Look through a folder for encoders that a zoo can be made of."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.errors import DataError, ModelError, SlimError, one_line
from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.graph.files import model_files
from onnxslim_bert.graph.native_path import is_utf8
from onnxslim_bert.graph.patience import renewed
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.job.rows import word_rows
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.progress import Progress
from onnxslim_bert.recipes.provenance import KEY
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.zoo.engines.local import LocalEngine
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.planning.data_checks import check_tokenizer
from onnxslim_bert.zoo.planning.find_models import is_output
from onnxslim_bert.zoo.store.storage import Storage

QUANTIZED = frozenset(
    (
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul"),
        *("DynamicQuantizeMatMul", "QAttention", "QEmbedLayerNormalization", "MatMulNBits"),
    )
)
TOGETHER = 32  # files that one process looks at
SECONDS, MEMORY = 60, 2 << 30  # for that, and more for large files:
BYTES_A_SECOND, MEMORY_A_BYTE = 10_000_000, 4


@dataclass(frozen=True)
class FoundEncoder:
    """A float encoder, and the folder with its tokenizer: its own, or one above it."""

    path: Path
    tokenizer: Path


@dataclass(frozen=True)
class LeftOut:
    """A file that is no model for a zoo, and why.

    tokenizer: the nearest folder with one, of a file that cannot be read; None for files that can, and without one.
    """

    path: Path
    reason: str
    tokenizer: Path | None = None


def find_encoders(folder: Path, progress: Progress | None = None) -> tuple[list[FoundEncoder], list[LeftOut]]:
    """The encoders below `folder`, and the .onnx files that are none, both folder by folder.

    Hidden folders, links to folders, and the outputs of `zoo run` are not looked into. Files are read in processes of
    their own, within limits: one that crashes its reader, or never ends, is left out like others.
    """
    paths = sorted(_onnx_files(folder), key=lambda path: (path.parent, path.name))
    tokenizers, unreadable = dict[Path, Path](), dict[Path, Path]()
    reasons = {path: "its name is not UTF-8, as a zoo file is" for path in paths if not is_utf8(path)}
    readable = [path for path in paths if path not in reasons]
    with scratch() as results:
        for number, (path, result) in enumerate(_looks(readable, folder, Storage(str(results))), 1):
            if "tokenizer" in result:
                tokenizers[path] = Path(result["tokenizer"])
            else:
                reasons[path] = (result.get("unusable") or result["unreadable"]).removeprefix(f"{path}: ")
            if "unreadable" in result:
                with contextlib.suppress(DataError):
                    unreadable[path] = _tokenizer(path, folder, None)
            if progress:
                progress("looking", number, len(readable))
    found = [FoundEncoder(path, tokenizers[path]) for path in paths if path in tokenizers]
    return found, [LeftOut(path, reasons[path], unreadable.get(path)) for path in paths if path in reasons]


def _looks(paths: Sequence[Path], top: Path, storage: Storage) -> Iterator[tuple[Path, dict[str, str]]]:
    """What `_look` says of each file, by few processes: a new Python takes longer than most files.

    Several files are looked at in one. Where it stops before it is through, the file at which it did is looked at
    alone, which tells what stops it, and those behind it together in another process.
    """
    groups = [paths[start : start + TOGETHER] for start in range(0, len(paths), TOGETHER)]
    while groups:
        tasks = {task.key: (group, task) for group in groups for task in [_task(group, top)]}
        groups = []
        every = (task for _, task in tasks.values())
        for ended in LocalEngine().run(every, str(storage.folder), lambda *_: None, lambda *_: None):
            group, _ = tasks[ended.key]
            said = {path: json.loads(found) for path in group if (found := storage.read(_name(path)))}
            yield from said.items()
            left = [path for path in group if path not in said]
            if len(group) == len(left) == 1:
                yield left[0], {"unreadable": ended.message}
            else:
                groups += [part for part in (left[:1], left[1:]) if part]


def look(task: Task, storage: Storage, folder: Path) -> list[str]:
    """What a process does: look at files, and write into the storage what is found, file by file. Returns their paths.

    See `onnxslim_bert.zoo.engines.worker` for what calls it.
    """
    paths: list[str] = task.payload["paths"]
    for path in map(Path, paths):
        with renewed():
            said = _look(path, Path(task.payload["top"]))
        storage.write(_name(path), json.dumps(said).encode())
    return paths


def _look(path: Path, top: Path) -> dict[str, str]:
    """The folder with the "tokenizer"; or why a file is "unreadable", or is read and "unusable"."""
    try:
        model_files(path)
        read_skeleton(path)
    except ModelError as error:
        return {"unreadable": str(error)}
    try:
        return {"tokenizer": str(_tokenizer(path, top, _vocabulary(path)))}
    except SlimError as error:
        return {"unusable": one_line(error)}


def _name(path: Path) -> str:
    return f"looks/{hashlib.sha256(os.fsencode(path)).hexdigest()}.json"


def _task(paths: Sequence[Path], top: Path) -> Task:
    sizes = [path.stat().st_size for path in paths if path.is_file()]  # a link to nothing is a reason, too
    return Task(
        key=hashlib.sha256(b"\0".join(map(os.fsencode, paths))).hexdigest(),
        kind=f"{__name__}:look",
        name=str(paths[0]),
        payload={"paths": list(map(str, paths)), "top": str(top)},
        memory=MEMORY + MEMORY_A_BYTE * max(sizes, default=0),
        timeout=SECONDS + sum(sizes) / BYTES_A_SECOND,
    )


def _onnx_files(folder: Path) -> Iterator[Path]:
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not (name.startswith(".") or is_output(Path(above, name)))]
        yield from (Path(above, name) for name in files if name.endswith(".onnx") and not name.startswith("."))


def _vocabulary(path: Path) -> int | None:
    """Ids that the encoder in a file takes, None when it is not known. Raises ModelError where there is none to use."""
    skeleton, _ = read_skeleton(path)
    if any(entry.key == KEY for entry in skeleton.metadata_props):
        raise ModelError("written by onnxslim-bert; start from the model that it was made of")
    quantized = sorted(QUANTIZED & {node.op_type for node in skeleton.graph.node})
    if quantized:
        raise ModelError(f"quantized already ({quantized[0]}); start from the float model")
    model = Model.load(path)
    Canonicalize().apply(model, Context())
    return word_rows(model)


def _tokenizer(path: Path, top: Path, vocabulary: int | None) -> Path:
    """The nearest folder with a tokenizer, from that of `path` up to `top`. Raises DataError when it does not fit."""
    for folder in _upwards(path.parent, top):
        try:
            check_tokenizer(folder)
        except DataError:
            continue
        load_tokenizer(folder).check_fits(vocabulary)
        return folder
    raise DataError(f"no tokenizer.json beside it or above it, up to {top}")


def _upwards(folder: Path, top: Path) -> Iterable[Path]:
    return [folder, *(above for above in folder.parents if above == top or top in above.parents)]
