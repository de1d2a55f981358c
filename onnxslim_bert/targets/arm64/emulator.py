"""The folder that holds an emulator of 64-bit ARM and a Python for it, and how a program is started in it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from onnxslim_bert.errors import ProviderError

EMULATOR = "qemu-aarch64"
SUITE, PYTHON = "trixie", "3.13"  # of Debian; the emulator of bookworm, 7.2, crashes when ONNX Runtime is imported
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"  # where its package debian-archive-keyring has them
NEEDED = ("apt-get", "dpkg-deb")
COMMAND = "onnxslim doctor --set-up-arm64"


def folder() -> Path:
    """Where it is, or would be: one for each version of ONNX Runtime."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "onnxslim-bert" / f"arm64-onnxruntime-{version('onnxruntime')}"


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

    Nothing of the system is changed: apt works on lists and a cache of its own, from the mirror that it is configured
    with, and checks Debian's signatures. The folder appears when it is whole. report: told each step.
    Raises ProviderError when a program is missing, or with the last line of one that failed.
    """
    final = folder()
    if final.is_dir():
        return final
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        raise ProviderError(f"{missing[0]} is not here: needed {' and '.join(NEEDED)}, which Debian has")
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".arm64-") as made:
        root = Path(made) / "root"
        report("looking packages up")
        apt = _private_apt(Path(made) / "apt")
        _run([*apt, "update"])
        report("fetching the emulator")
        _unpack(apt, ["qemu-user"], Path(made) / "emulators")
        root.mkdir()
        (Path(made) / "emulators" / "usr" / "bin" / EMULATOR).rename(root / EMULATOR)
        report("fetching Python")
        _unpack(apt, [f"python{PYTHON}:arm64", "libstdc++6:arm64"], root / "system")
        (root / "system" / "lib").symlink_to("usr/lib")  # as the package of base files would
        report("fetching numpy and onnxruntime")
        wheels = [word for platform in PLATFORMS for word in ("--platform", platform)]
        _run([
            *(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(root / "packages"), *wheels),
            *("--python-version", PYTHON, "--only-binary=:all:", "--no-deps"),
            *(f"onnxruntime=={version('onnxruntime')}", "numpy"),
        ])  # fmt: skip
        root.rename(final)
    return final


def _private_apt(state: Path) -> list[str]:
    """apt-get with folders of its own, for packages of this machine's architecture and of arm64."""
    (state / "lists" / "partial").mkdir(parents=True)
    (state / "status").touch()
    listed = _run(["apt-get", "indextargets", "--format", "$(SITE) $(ARCHITECTURE)", "Origin: Debian", "Label: Debian"])
    if not listed:
        raise ProviderError("apt is configured with no mirror of Debian: needed one for its packages of arm64")
    site, architecture = listed[0].split()
    (state / "sources.list").write_text(f"deb [arch={architecture},arm64 signed-by={KEYS}] {site} {SUITE} main\n")
    options = {
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": state,
        "Dir::State::Lists": state / "lists",
        "Dir::State::status": state / "status",
        "APT::Sandbox::User": "",
        "APT::Architectures": f"{architecture},arm64",
    }
    return ["apt-get", "--quiet=2", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]


def _unpack(apt: Sequence[str], packages: Sequence[str], into: Path) -> None:
    """Fetch packages with all that they depend on, and unpack them into a folder; no script of theirs is run."""
    with tempfile.TemporaryDirectory(dir=into.parent.parent) as cache:
        cached = [*apt, "-o", f"Dir::Cache={cache}"]
        (Path(cache) / "archives" / "partial").mkdir(parents=True)
        _run([*cached, "--yes", "--no-install-recommends", "--download-only", "install", *packages])
        for archive in sorted((Path(cache) / "archives").glob("*.deb")):
            _run(["dpkg-deb", "-x", str(archive), str(into)])


def _run(words: Sequence[str]) -> list[str]:
    """The lines that a program printed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise ProviderError(f"{Path(words[0]).name} failed while the emulator of arm64 was set up: {said}")
    return done.stdout.splitlines()
