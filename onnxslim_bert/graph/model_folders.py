"""Folders that hold a model as Hugging Face and sentence-transformers lay them out.

    folder/config.json  tokenizer.json  modules.json  1_Pooling/config.json  README.md  onnx/model.onnx

The ONNX file lies in the folder itself or in one called onnx, whose files then belong to those above it.
"""

from pathlib import Path

from onnxslim_bert.errors import ModelError

ONNX = "onnx"
USUAL = (f"{ONNX}/model.onnx", "model.onnx")
MOST_LISTED = 8
TORCH_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def find_model(path: Path) -> Path:
    """The ONNX file that `path` names: a folder's onnx/model.onnx, its model.onnx, or the only one in it.

    A path that is no folder is returned as it is. Raises ModelError for a folder without an ONNX file, or with several
    of which none has a usual name; they are listed.
    """
    if not path.is_dir():
        return path
    found = next((path / name for name in USUAL if (path / name).is_file()), None)
    if found is not None:
        return found
    several = onnx_files(path)
    if len(several) > 1:
        names = [str(file.relative_to(path)) for file in several]
        more = f" and {len(names) - MOST_LISTED} more" * (len(names) > MOST_LISTED)
        raise ModelError(f"{path} holds several ONNX files, name one: {', '.join(names[:MOST_LISTED])}{more}")
    if not several:
        raise ModelError(f"{path}: a folder; an ONNX model was needed, and it holds none{_offer(path)}")
    return several[0]


def onnx_files(folder: Path) -> list[Path]:
    """The ONNX files in `folder` and below it, sorted; nothing in hidden folders."""
    return [
        file
        for file in sorted(folder.rglob("*.onnx"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def has_torch_weights(folder: Path) -> bool:
    """Whether an ONNX file can be exported of the folder: a configuration and PyTorch's weights."""
    weights = any(True for pattern in TORCH_WEIGHTS for _ in folder.glob(pattern))
    return weights and (folder / "config.json").is_file()


def folder_with(model: Path, *names: str) -> Path:
    """The folder in which a file of a model lies: the model's own, or the one above where its own is called onnx.

    names: the file's possible names, the best first; the model's own folder when neither holds any. Example: for
    bert/onnx/model.onnx and tokenizer.json, bert/onnx when it holds a tokenizer.json, else bert when that holds one.
    """
    folders = [model.parent, *([model.parent.parent] if model.parent.name == ONNX else [])]
    return next((folder for name in names for folder in folders if (folder / name).exists()), model.parent)


def _offer(folder: Path) -> str:
    """What a user can do with a folder that holds no ONNX file."""
    if has_torch_weights(folder):
        return f"; `onnxslim export {folder} -o model.onnx` makes one of its PyTorch weights (extra [export])"
    return ", nor PyTorch weights with a config.json to make one of"
