"""A quick look at the data that a zoo file names: is it there, can it be read, does it hold labels."""

from pathlib import Path

from onnxslim_bert.calibration.dataset import Purpose
from onnxslim_bert.calibration.files import READERS
from onnxslim_bert.calibration.glue import GLUE, UNLABELLED
from onnxslim_bert.calibration.hub import find_file
from onnxslim_bert.calibration.load_tokenizer import DESCRIPTIONS
from onnxslim_bert.calibration.loading import BUILT_IN, is_named, load_dataset
from onnxslim_bert.calibration.ranked import is_folder
from onnxslim_bert.errors import DataError
from onnxslim_bert.rewriting.options import nearest

INPUTS = ".npz"  # ready model inputs, which no tokenizer is read for


def place_of(spec: str, folder: Path) -> str:
    """A data set as every process finds it: its name, or its file, relative paths beginning at `folder`."""
    return spec if is_named(spec) else str((folder / spec).absolute())


def is_text(spec: str | None) -> bool:
    """Whether these are texts, which need a tokenizer."""
    return spec is not None and not spec.lower().endswith(INPUTS)


def check_there(spec: str, purpose: Purpose) -> None:
    """Raise DataError when the data set is not there or of no type that can be read; a file is not opened."""
    name = spec.lower().replace("-", "")
    if name in GLUE:
        find_file(name, GLUE[name].calibration if purpose == "calibration" else GLUE[name].evaluation)
    elif not is_named(spec):
        path = Path(spec)
        if not path.is_file():
            if is_folder(path):
                return
            if path.is_dir():
                raise DataError(f"{spec} is a folder: needed one file in it")
            known = (*GLUE, *BUILT_IN)
            hint = nearest(path.name, known) or f"; the named sets are {', '.join(known)}"
            raise DataError(f"no named set, and no file {spec}{hint}")
        if path.suffix.lower() not in (*READERS, INPUTS):
            raise DataError(f"{spec}: unknown file type: needed one of {', '.join((*READERS, INPUTS))}")


def is_labelled(spec: str, text_columns: tuple[str, ...], label_column: str | None, task: str = "") -> bool:
    """Whether evaluation rows have labels. A file is read, and DataError raised for what is wrong in it."""
    if is_named(spec):
        return spec.lower().replace("-", "") not in UNLABELLED
    rows = load_dataset(spec, "evaluation", text_columns=text_columns or None, label_column=label_column, task=task)
    return rows.is_labelled


def check_tokenizer(place: Path) -> None:
    """Raise DataError when no tokenizer lies at `place`, a folder or a tokenizer.json; it is not loaded."""
    if place.is_dir():
        if not any((place / name).is_file() for name in ("tokenizer.json", *DESCRIPTIONS)):
            raise DataError(f"no tokenizer.json in {place}; give tokenizer, a folder or that file")
    elif not place.is_file():
        raise DataError(f"tokenizer {place} does not exist: needed a folder with tokenizer.json, or that file")
    elif place.suffix != ".json":
        raise DataError(f"tokenizer {place} is not a tokenizer.json: needed that file or its folder")
