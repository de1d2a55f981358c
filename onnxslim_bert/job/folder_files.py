"""The files of a model's folder: where programs look for its ONNX file, which hold weights, and copies of the rest."""

import os
import shutil
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from onnxslim_bert.errors import OutputError
from onnxslim_bert.graph.model_folders import ONNX

# Where each program looks for a model unless it is told otherwise; transformers.js, for its dtype "q8".
LAYOUTS = {
    "transformers.js": f"{ONNX}/model_quantized.onnx",
    "sentence-transformers": f"{ONNX}/model.onnx",
    "optimum": "model_quantized.onnx",
    "fastembed": "model_optimized.onnx",
    "vespa": "model.onnx",
}
USUAL = f"{ONNX}/model_quantized.onnx"
# The encoder's weights in all forms, by name in the folder; those of a Dense layer lie in a folder of their own.
WEIGHTS = (
    *("*.safetensors", "*.safetensors.index.json", "pytorch_model*", "tf_model*", "flax_model*", "rust_model*"),
    *("*.onnx", "*.onnx_data*", "*.onnx.data", f"{ONNX}/*.onnx", f"{ONNX}/*.onnx_data*", f"{ONNX}/*.onnx.data"),
    "openvino/*",
)


def model_place(layout: str | None, name: str | None) -> PurePosixPath:
    """Where a written folder has its model: by a layout of LAYOUTS, and by a file name in its folder, or a whole path.

    Example: sentence-transformers and model_qint8.onnx: onnx/model_qint8.onnx. Raises OutputError for a name that
    leaves the folder or does not end in .onnx.
    """
    place = PurePosixPath(LAYOUTS[layout] if layout else USUAL)
    if name is None:
        return place
    named = PurePosixPath(name)
    if named.suffix != ".onnx" or named.is_absolute() or {"..", "."} & {*named.parts} or "\\" in name:
        raise OutputError(f"--name {name}: needed a file of the folder, like model_qint8.onnx or onnx/model_qint8.onnx")
    return named if len(named.parts) > 1 else place.with_name(name)


def files_in(folder: Path) -> list[PurePosixPath]:
    """Every file below a folder, and every link to a folder, by its name in it, sorted.

    Nothing in hidden folders, such as .git and .cache.
    """
    found: list[PurePosixPath] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(place, name).is_symlink()]  # which os.walk does not follow
        found += [PurePosixPath(Path(place, name).relative_to(folder).as_posix()) for name in (*files, *links)]
    return sorted(found)


def is_weight(name: PurePosixPath) -> bool:
    """Whether a file of a folder holds the encoder's weights, by its name (WEIGHTS)."""
    return any(pattern.count("/") == len(name.parts) - 1 and fnmatch(str(name), pattern) for pattern in WEIGHTS)


def copy_files(source: Path, target: Path, names: Iterable[PurePosixPath]) -> None:
    """Copy files of one folder to the same names in another.

    Of a link, what it leads to: a file of the same folder, or of the cache of the hub, which keeps its files in blobs/
    and links to them from snapshots/REVISION/. Raises OutputError for any other link, and for what cannot be copied.
    """
    whole = source.resolve()
    held = whole, whole.parent.parent / "blobs"
    try:
        for name in names:
            led = (source / name).resolve()
            if not any(led.is_relative_to(folder) for folder in held):
                raise OutputError(f"{source / name} leads to {led}, outside of that folder; put a copy there")
            if not led.is_file():
                raise OutputError(f"{source / name}: no regular file, so it cannot be copied; take it away")
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
    except (OSError, shutil.SpecialFileError) as error:
        raise OutputError(f"{source / name}: cannot be copied ({error}); nothing was changed") from error
