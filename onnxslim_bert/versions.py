"""What of the software decides what is written."""

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

import onnxslim_bert
from onnxslim_bert.targets.table import TARGETS

PACKAGES = ("onnx", "onnxruntime", "onnx-graphsurgeon", "numpy", "tokenizers")
PLUGINS = {"qnn": "onnxruntime-qnn", "openvino": "onnxruntime-ep-openvino"}


def versions(target: str = "cpu") -> dict[str, str]:
    """Versions by package, with those that provide `target`; "absent" for one that is not installed.

    Our own version is followed by a hash of our sources, so that a development checkout is a version of its own.
    """
    packages = [*PACKAGES, *([PLUGINS[TARGETS[target].extra]] if TARGETS[target].extra else [])]
    own = {"onnxslim-bert": f"{onnxslim_bert.__version__}+{sources_hash()}"}
    return own | {name: version_of(name) for name in packages}


@cache
def sources_hash() -> str:
    """The first 12 hexadecimal digits of a sha256 over our own modules and their names."""
    root = Path(onnxslim_bert.__file__).parent
    digest = hashlib.sha256()
    linked = (path for folder in ("passes", "calibration") for path in (root / folder).glob("*.py"))  # in a checkout
    for path in sorted({*root.rglob("*.py"), *linked}):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def version_of(package: str) -> str:
    """Of an installed package; "absent" when it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
