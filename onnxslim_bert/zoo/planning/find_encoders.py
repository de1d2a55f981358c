"""Look through a folder for encoders that a zoo can be made of."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.calibration.tokenizer import load_tokenizer
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.graph.files import model_files
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
from onnxslim_bert.zoo.store.storage import Storage, result_name

QUANTIZED = frozenset(
    (
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul"),
        *("DynamicQuantizeMatMul", "QAttention", "QEmbedLayerNormalization", "MatMulNBits"),
    )
)
SECONDS, MEMORY = 60, 2 << 30  # for a look at a file, and more for a large one:
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

    Hidden folders, links to folders, and the outputs of `zoo run` are not looked into. Each file is read in a process
    of its own, within limits: one that crashes its reader, or never ends, is left out like others.
    """
    paths = sorted(_onnx_files(folder), key=lambda path: (path.parent, path.name))
    tokenizers, unreadable = dict[Path, Path](), dict[Path, Path]()
    reasons = {path: "its name is not UTF-8, as a zoo file is" for path in paths if not _is_text(path)}
    tasks = {task.key: (path, task) for path in paths if path not in reasons for task in [_task(path, folder)]}
    with scratch() as results:
        ends = LocalEngine().run((task for _, task in tasks.values()), str(results), lambda task, worker: None)
        for number, ended in enumerate(ends, 1):
            path, _ = tasks[ended.key]
            result = {"unreadable": ended.message}
            if ended.status == "done":
                result = json.loads(Storage(str(results)).read(result_name(ended.key)) or "")
            if "tokenizer" in result:
                tokenizers[path] = Path(result["tokenizer"])
            else:
                reasons[path] = result["unreadable"].removeprefix(f"{path}: ")
            if ended.status != "failed" and "unreadable" in result:
                with contextlib.suppress(DataError):
                    unreadable[path] = _tokenizer(path, folder, None)
            if progress:
                progress("looking", number, len(tasks))
    found = [FoundEncoder(path, tokenizers[path]) for path in paths if path in tokenizers]
    return found, [LeftOut(path, reasons[path], unreadable.get(path)) for path in paths if path in reasons]


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def look(task: Task, storage: Storage, folder: Path) -> dict[str, str]:
    """What a process does with one file: the folder with its tokenizer, or why it cannot be read.

    Raises SlimError for a file that can be read where a zoo has no use for it. See `onnxslim_bert.zoo.engines.worker`
    for what calls it.
    """
    path, top = Path(task.payload["path"]), Path(task.payload["top"])
    try:
        model_files(path)
        read_skeleton(path)
    except ModelError as error:
        return {"unreadable": str(error)}
    return {"tokenizer": str(_tokenizer(path, top, _vocabulary(path)))}


def _task(path: Path, top: Path) -> Task:
    nbytes = path.stat().st_size if path.is_file() else 0  # a link to nothing, a pipe or a folder is a reason, too
    return Task(
        key=hashlib.sha256(os.fsencode(path)).hexdigest(),
        kind=f"{__name__}:look",
        name=str(path),
        payload={"path": str(path), "top": str(top)},
        memory=MEMORY + MEMORY_A_BYTE * nbytes,
        timeout=SECONDS + nbytes / BYTES_A_SECOND,
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
