"""Open a bundle: a folder to be run on a device, whose files are all there and unchanged."""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from onnxslim_bert.arrays import Array
from onnxslim_bert.device.manifest import MANIFEST, MODEL, Manifest
from onnxslim_bert.device.vectors import unpack
from onnxslim_bert.documents import read_document, read_whole
from onnxslim_bert.errors import DataError
from onnxslim_bert.targets.table import TARGETS


@dataclass(frozen=True)
class Bundle:
    """sha256: of manifest.json, which holds the hashes of all other files."""

    folder: Path
    manifest: Manifest
    sha256: str

    def tensor(self, name: str) -> Array:
        """The test vector at this path in the bundle."""
        return unpack(read_whole(self.folder / name, "a tensor"), self.folder / name)


def open_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`. Raises DataError when a file is missing, changed, or outside of it."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder} is no bundle: needed {MANIFEST} in it, as `onnxslim device bundle` writes it")
    text = read_whole(path)
    manifest = read_document(Manifest, text, path)
    plan = manifest.plan
    if plan.target not in TARGETS:
        raise DataError(f"{path}: target {plan.target!r}: needed one of {', '.join(TARGETS)}")
    if plan.warmup < 0 or min(plan.runs, plan.threads, manifest.batch, manifest.vectors) < 1:
        raise DataError(f"{path}: needed runs, threads, batch and vectors of 1 or more, and no negative warmup")
    if manifest.vectors > len(manifest.files):
        raise DataError(f"{path} is incomplete: hashes of {len(manifest.files)} files for {manifest.vectors} test sets")
    missing = {MODEL, *manifest.input_files(), *manifest.output_files()} - manifest.files.keys()
    if missing:
        raise DataError(f"{path} is incomplete: needed the hash of {min(missing)}")
    for name, expected in manifest.files.items():
        if sha256_of(inside(folder, name)) != expected:
            raise DataError(f"{folder / name} is not the file that was bundled: make the bundle again")
    return Bundle(folder, manifest, hashlib.sha256(text).hexdigest())


def inside(folder: Path, name: str) -> Path:
    """The file `name` of a bundle. Raises DataError unless it is a file within `folder`, links followed."""
    pure = PurePosixPath(name)
    path = folder / name
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{folder}: {name!r} lies outside the bundle: needed paths that stay inside")
    if not path.is_file():
        raise DataError(f"{folder} is incomplete: needed the file {name}")
    return path


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
