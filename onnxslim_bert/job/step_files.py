"""The model after each step of a recipe, as files that stay."""

import re
from collections.abc import Iterator
from pathlib import Path

from onnxslim_bert.errors import OutputError
from onnxslim_bert.model.onnx_model import Model

OURS = re.compile(r"\d\d-[a-z0-9-]+\.onnx(\.data)?|steps\.json")


class StepFiles:
    """A folder with the model after step i of a recipe as `II-PASS.onnx`, for each step that changed something.

    What an earlier run left there is deleted. Raises OutputError when the folder cannot be made or holds something
    else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        check_steps(folder)
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error.strerror}); give another folder") from error
        for path in folder.iterdir():
            path.unlink()

    def keep(self, model: Model, number: int, name: str) -> None:
        """Write `model` as it is after the pass `name`, the step `number` of the recipe."""
        model.save(self.folder / f"{number:02}-{name}.onnx")


def check_steps(folder: Path) -> None:
    """Raise OutputError when `folder` holds anything but steps of an earlier run."""
    found = folder.iterdir() if folder.is_dir() and not folder.is_symlink() else iter(())
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"{folder} is no folder: steps are kept there; give another")
    if other := next((path.name for path in found if not OURS.fullmatch(path.name)), ""):
        raise OutputError(f"{folder} holds {other!r}: steps are kept in a folder of their own; give another")


def step_files(folder: Path) -> Iterator[Path]:
    """The models of a folder of steps, in the order of the recipe."""
    yield from sorted(folder.glob("*.onnx"))
