"""Which ONNX file a folder stands for, and in which folder the other files of a model lie."""

from pathlib import Path

import pytest

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.model_folders import find_model, folder_with


def holding(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["onnx/model.onnx", "model.onnx", "other.onnx"], "onnx/model.onnx"),
        (["model.onnx", "onnx/model_quantized.onnx"], "model.onnx"),
        (["onnx/model_quantized.onnx"], "onnx/model_quantized.onnx"),
        (["deep/er/x.onnx", ".git/y.onnx", "model.onnx_data"], "deep/er/x.onnx"),
    ],
)
def test_a_folder_stands_for_the_usual_file_or_its_only_one(tmp_path: Path, names: list[str], found: str) -> None:
    """onnx/model.onnx before model.onnx before the only ONNX file; hidden folders hold none."""
    assert find_model(holding(tmp_path, *names)) == tmp_path / found


def test_several_files_are_listed_in_one_line(tmp_path: Path) -> None:
    """A folder of several ONNX files without a usual name names eight of them and counts the rest."""
    folder = holding(tmp_path, *(f"onnx/model_{number}.onnx" for number in range(10)))
    with pytest.raises(ModelError, match=r"several .*, name one: onnx/model_0.onnx, .*model_7.onnx and 2 more$"):
        find_model(folder)


def test_a_folder_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    """Nothing to export: said so; PyTorch weights with a configuration: the command that exports them."""
    with pytest.raises(ModelError, match="a folder; an ONNX model was needed, and it holds none, nor PyTorch weights"):
        find_model(tmp_path)
    with pytest.raises(ModelError, match=r"onnxslim export .* -o model\.onnx"):
        find_model(holding(tmp_path, "config.json", "model.safetensors"))


def test_any_other_path_is_returned(tmp_path: Path) -> None:
    """A file, and a path of nothing, stay what they are."""
    assert find_model(tmp_path / "nothing") == tmp_path / "nothing"


def test_files_of_a_model_in_onnx_lie_beside_it_or_above(tmp_path: Path) -> None:
    """Its own folder comes first, for each name; the folder above counts only where its own is called onnx."""
    holding(tmp_path, "tokenizer.json", "config.json", "onnx/config.json", "other/model.onnx")
    assert folder_with(tmp_path / "onnx/model.onnx", "config.json") == tmp_path / "onnx"
    assert folder_with(tmp_path / "onnx/model.onnx", "tokenizer.json", "config.json") == tmp_path
    assert folder_with(tmp_path / "onnx/model.onnx", "vocab.txt") == tmp_path / "onnx"
    assert folder_with(tmp_path / "other/model.onnx", "tokenizer.json") == tmp_path / "other"
