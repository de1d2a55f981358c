"""Where a written model comes from, kept inside it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
import onnxruntime

from onnxslim_bert import __version__
from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.model import Model
from onnxslim_bert.proof.footprint import model_files

KEY = "onnxslim_bert.provenance"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Provenance:
    """What decides the bytes of a written model.

    source_sha256: of the source file and its external data. recipe: every pass as it ran. calibration: name, split and
    number of rows, empty without; calibration_sha256: of those rows. corpus, corpus_sha256: likewise, of the texts in
    which tokens were counted.
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

    @classmethod
    def of(cls, source: Path, recipe: str, calibration: Dataset | None, corpus: Dataset | None = None) -> "Provenance":
        """The provenance of a model made now from the file `source`."""
        return cls(
            __version__,
            onnx.__version__,
            onnxruntime.__version__,
            source.name,
            file_sha256(*model_files(source)),
            recipe,
            *_described(calibration),
            *_described(corpus),
        )


def _described(dataset: Dataset | None) -> tuple[str, str]:
    if dataset is None:
        return "", ""
    return f"{dataset.name} {dataset.split}, {len(dataset)} rows", dataset.fingerprint()


def stamp(model: Model, provenance: Provenance) -> None:
    """Write `provenance` into the model's metadata."""
    kept = [entry for entry in model.header.metadata_props if entry.key != KEY]
    del model.header.metadata_props[:]
    model.header.metadata_props.extend(kept)
    model.header.metadata_props.add(key=KEY, value=json.dumps(asdict(provenance), sort_keys=True))


def file_sha256(*paths: Path) -> str:
    """The sha256 of the files' bytes, one after the other, hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
