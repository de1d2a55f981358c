"""The CPU's instruction sets for int8, as the operating system lists them, and what they mean for the CPU provider."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

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
