"""This machine: its CPU and instruction sets, how busy it is, and the software that decides what is written."""

import hashlib
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import onnxslim_bert

# Names for people by flag of Linux's /proc/cpuinfo (arch/x86/include/asm/cpufeatures.h, arch/arm64/kernel/cpuinfo.c).
FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "neon": "NEON",
    "asimd": "NEON",
    "asimddp": "DOTPROD",
    "i8mm": "I8MM",
    "bf16": "BF16",
}
# The same of `sysctl hw.optional` on macOS.
SYSCTL = {"FEAT_DotProd": "DOTPROD", "FEAT_I8MM": "I8MM", "FEAT_BF16": "BF16", "neon": "NEON", "avx2_0": "AVX2"}

PACKAGES = ("onnx", "onnxruntime", "onnx-graphsurgeon", "numpy", "tokenizers")
PLUGINS = {"qnn": "onnxruntime-qnn", "openvino": "onnxruntime-ep-openvino"}

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")  # set to 1 unless the user set them


@dataclass(frozen=True)
class Host:
    """cpus: that this process may use. load: mean number of runnable processes over the last minute, all users."""

    cpu: str
    cpus: int
    load: float
    system: str
    onnxruntime: str


def host() -> Host:
    """The host now."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    system = f"{platform.system()} {platform.machine()}"
    return Host(_cpu_name(), usable, round(os.getloadavg()[0], 2), system, version_of("onnxruntime"))


def _cpu_name() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def versions(extra: str = "") -> dict[str, str]:
    """Versions by package, with the plugin that the extra `extra` installs; "absent" for one that is not installed.

    Our own version is followed by a hash of our sources, so that a development checkout is a version of its own.
    """
    packages = [*PACKAGES, *([PLUGINS[extra]] if extra else [])]
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


@dataclass(frozen=True)
class Int8Advice:
    """pairing: activations x weights that the sets suit best. saturates: pairs of u8 x s8 products overflow 16 bits.
    note: what that means, in a sentence.
    """

    pairing: str
    saturates: bool
    note: str


def instruction_sets() -> tuple[str, ...]:
    """What this CPU has of the sets that matter here; empty where the system does not say."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        return sets_in(listing.read_text())
    if sys.platform == "darwin":
        said = subprocess.run(["sysctl", "hw.optional"], capture_output=True, text=True, check=False).stdout
        on = {line.split(":")[0].rsplit(".", 1)[-1] for line in said.splitlines() if line.endswith(": 1")}
        return tuple(dict.fromkeys(name for key, name in SYSCTL.items() if key in on))
    return ()


def sets_in(cpuinfo: str) -> tuple[str, ...]:
    """The sets that the first processor of a /proc/cpuinfo has."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    found = next((value.split() for key, _, value in lines if key.strip() in ("flags", "Features")), [])
    return tuple(dict.fromkeys(name for flag, name in FLAGS.items() if flag in found))


def int8_advice(sets: tuple[str, ...]) -> Int8Advice:
    """What int8 is worth on a CPU with these sets (the kernels that onnxruntime/core/mlas/lib/platform.cpp chooses)."""
    vnni = [name for name in ("AMX-INT8", "AVX512-VNNI", "AVX-VNNI") if name in sets]
    if vnni:
        return Int8Advice(
            "u8 x s8", False, f"{vnni[0]}: u8 x s8 is exact and fastest; reduce_range loses bits for nothing"
        )
    if "AVX2" in sets or "AVX512" in sets:
        note = (
            "no VNNI: two u8 x s8 products are added in 16 bits and saturate; reduce_range gives up as much of the "
            "weights' range as it takes, and session.x64quantprecision=1 computes u8 x u8 exactly, more slowly"
        )
        return Int8Advice("u8 x s8, reduce_range", True, note)
    if "DOTPROD" in sets or "I8MM" in sets:
        return Int8Advice("s8 x s8 or u8 x s8", False, "dot products of ARM: signed activations are exact and as fast")
    return Int8Advice(
        "u8 x s8", False, "no instructions for int8 are known here: measure before you quantize for speed"
    )
