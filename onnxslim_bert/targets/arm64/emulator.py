"""The folder that holds an emulator of 64-bit ARM and a Python for it, and how a program is started in it."""

import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.targets.arm64.debian import SUITE, Apt, check_here, run

EMULATOR = "qemu-aarch64"
PYTHON = "3.13"  # of SUITE
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
NEEDED = ("apt-get", "dpkg-deb")
COMMAND = "onnxslim doctor --set-up-arm64"


def cache() -> Path:
    """The folder that holds what is set up."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onnxslim-bert"


def folder() -> Path:
    """Where it is, or would be: one for each version of ONNX Runtime."""
    return cache() / f"arm64-onnxruntime-{version('onnxruntime')}"


def command(cpu: str) -> tuple[str, ...]:
    """The words that start a Python program as on the CPU `cpu`, a name of `qemu-aarch64 -cpu help`.

    Raises ProviderError when the emulator is not set up.
    """
    root = folder()
    if not root.is_dir():
        raise ProviderError(f"the emulator of 64-bit ARM is not set up: `{COMMAND}` does, in {root}")
    python = str(root / "system" / "usr" / "bin" / f"python{PYTHON}")
    packages = ["-E", f"PYTHONPATH={root / 'packages'}"]
    return (str(root / EMULATOR), "-L", str(root / "system"), "-cpu", cpu, *packages, python, "-sPB")


def set_up(report: Callable[[str], None]) -> Path:
    """Fetch Debian's emulator and arm64 Python, and wheels of the installed onnxruntime; return their folder.

    Nothing of the system is changed (`debian.Apt`). The folder appears when it is whole. report: told each step.
    Raises ProviderError when a program is missing, or with what one that failed said.
    """
    final = folder()
    if final.is_dir():
        return final
    check_here(NEEDED)
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".arm64-") as made:
        root = Path(made) / "root"
        report("looking packages up")
        apt = Apt(Path(made) / "apt", ("deb", SUITE))
        report("fetching the emulator")
        apt.unpack(["qemu-user"], Path(made) / "emulators")
        root.mkdir()
        (Path(made) / "emulators" / "usr" / "bin" / EMULATOR).rename(root / EMULATOR)
        report("fetching Python")
        apt.unpack([f"python{PYTHON}:arm64", "libstdc++6:arm64"], root / "system")
        (root / "system" / "lib").symlink_to("usr/lib")  # as the package of base files would
        report("fetching numpy and onnxruntime")
        wheels = [word for platform in PLATFORMS for word in ("--platform", platform)]
        run([
            *(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(root / "packages"), *wheels),
            *("--python-version", PYTHON, "--only-binary=:all:", "--no-deps"),
            *(f"onnxruntime=={version('onnxruntime')}", "numpy"),
        ])  # fmt: skip
        root.rename(final)
    return final
