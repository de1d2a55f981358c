"""Where a written model comes from, kept inside it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import onnx
import onnxruntime

from onnxslim_bert import __version__
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.errors import ModelError, one_line
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.wording import plural

KEY = "onnxslim_bert.provenance"
MEASURED = "onnxslim_bert.release.measured"  # `job.measured.Measured`


@dataclass(frozen=True)
class Provenance:
    """What decides the bytes of a written model.

    onnxslim_bert, onnx, onnxruntime: versions. source: the source file's name. source_sha256: the hash of it and its
    external data. recipe: every pass as it ran. calibration: the data's name, split and number of rows, like
    "sst2 train, 128 rows"; empty without. calibration_sha256: the hash of those rows. corpus, corpus_sha256: the same
    of the texts whose tokens were counted and that were learnt from. training: steps, losses and PyTorch's version of
    each training; empty without.
    """

    onnxslim_bert: str
    onnx: str
    onnxruntime: str
    source: str
    source_sha256: str
    recipe: str
    calibration: str
    calibration_sha256: str
    corpus: str = ""
    corpus_sha256: str = ""
    training: str = ""

    @classmethod
    def of(
        cls,
        source: Path,
        sha256: str,
        recipe: str,
        calibration: Dataset | None,
        corpus: Dataset | None = None,
        training: str = "",
    ) -> "Provenance":
        """The provenance of a model made now from the file `source`. sha256: of that file when it was read."""
        return cls(
            __version__,
            onnx.__version__,
            onnxruntime.__version__,
            source.name,
            sha256,
            recipe,
            *_described(calibration),
            *_described(corpus),
            training,
        )


def _described(dataset: Dataset | None) -> tuple[str, str]:
    if dataset is None:
        return "", ""
    return f"{dataset.name} {dataset.split}, {plural(len(dataset), 'row')}", dataset.fingerprint()


def stamp(model: Model, provenance: Provenance) -> None:
    """Write `provenance` into the model's metadata; what that said of an earlier form of the model goes."""
    forget(model.header, KEY, MEASURED)
    model.header.metadata_props.add(key=KEY, value=json.dumps(asdict(provenance), sort_keys=True))


def forget(header: onnx.ModelProto, *keys: str) -> None:
    """Take these entries out of the metadata."""
    kept = [entry for entry in header.metadata_props if entry.key not in keys]
    del header.metadata_props[:]
    header.metadata_props.extend(kept)


def notes(path: Path) -> dict[str, str]:
    """The metadata of the model file at `path`, by key, as far as they are text; of a key that repeats the last value.

    Raises ModelError when the file is no model.
    """
    entries = read_skeleton(path)[0].metadata_props
    return {entry.key: entry.value for entry in entries if isinstance(entry.value, str)}  # bytes, where no UTF-8


def is_written(path: Path) -> bool:
    """Whether onnxslim wrote the file at `path`; False for a file that is no model."""
    try:
        return KEY in notes(path)
    except ModelError:
        return False


def provenance_in(path: Path, held: Mapping[str, str]) -> Provenance:
    """The provenance in the metadata `held` of the file at `path`. Raises ModelError when none can be read there."""
    if KEY not in held:
        lost = "onnxslim did not write it, or another tool dropped its metadata"
        raise ModelError(f"{path} has no provenance: {lost}; give the file as onnxslim wrote it, or make it again")
    known = {field.name for field in fields(Provenance)}
    try:
        found = {name: str(value) for name, value in json.loads(held[KEY]).items() if name in known}
        if not all(value.isprintable() for value in found.values()):  # it may reach a terminal
            raise ValueError("it holds control characters")
        return Provenance(**found)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: {KEY} cannot be read ({one_line(error)}): needed what onnxslim wrote") from error
