"""Look through a folder for encoders that a zoo can be made of."""

import gc
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.calibration.tokenizer import load_tokenizer
from onnxslim_bert.errors import DataError, ModelError, SlimError, one_line
from onnxslim_bert.graph.files import model_files
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.job.rows import word_rows
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.progress import Progress
from onnxslim_bert.recipes.provenance import KEY
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.zoo.planning.data_checks import check_tokenizer
from onnxslim_bert.zoo.planning.find_models import is_output

QUANTIZED = frozenset(
    (
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul"),
        *("DynamicQuantizeMatMul", "QAttention", "QEmbedLayerNormalization", "MatMulNBits"),
    )
)


@dataclass(frozen=True)
class Found:
    """A float encoder, and the folder with its tokenizer: its own, or one above it."""

    path: Path
    tokenizer: Path


@dataclass(frozen=True)
class LeftOut:
    """A file that is no model for a zoo, and why."""

    path: Path
    reason: str


def find_encoders(folder: Path, progress: Progress | None = None) -> tuple[list[Found], list[LeftOut]]:
    """The encoders below `folder`, and the .onnx files that are none, both folder by folder.

    Hidden folders, links to folders, and the outputs of `zoo run` are not looked into. Weights stay in their files.
    """
    found, left = [], []
    paths = sorted(_onnx_files(folder), key=lambda path: (path.parent, path.name))
    for number, path in enumerate(paths):
        try:
            found.append(Found(path, _tokenizer(path, folder, _vocabulary(path))))
        except SlimError as error:
            left.append(LeftOut(path, one_line(error).removeprefix(f"{path}: ")))
        gc.collect()  # a graph's nodes and tensors refer to each other
        if progress:
            progress("looking", number + 1, len(paths))
    return found, left


def _onnx_files(folder: Path) -> Iterator[Path]:
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not (name.startswith(".") or is_output(Path(above, name)))]
        yield from (Path(above, name) for name in files if name.endswith(".onnx") and not name.startswith("."))


def _vocabulary(path: Path) -> int | None:
    """Ids that the encoder in a file takes, None when it is not known. Raises ModelError where there is none to use."""
    model_files(path)
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
