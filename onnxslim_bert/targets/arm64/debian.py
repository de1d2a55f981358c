"""Packages and sources of Debian, fetched and unpacked without root; nothing of the system is changed.

apt works on lists and a cache of its own, from the mirror that it is configured with, and checks Debian's signatures.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnxslim_bert.errors import ProviderError

SUITE = "trixie"  # the emulator of bookworm, 7.2, crashes when ONNX Runtime is imported
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"  # where its package debian-archive-keyring has them
PACKAGED = {"apt-get": "apt", "dpkg-deb": "dpkg", "ninja": "ninja-build"}  # where it is not the program's name
LONGEST = 400  # letters of what a program said


class Apt:
    """apt-get with a folder of its own, for this machine's architecture and arm64.

    entries: what it lists, kinds with their suites, like ("deb", "trixie").
    Raises ProviderError when apt is configured with no mirror, or it cannot be reached.
    """

    def __init__(self, state: Path, *entries: tuple[str, str]) -> None:
        (state / "lists" / "partial").mkdir(parents=True)
        (state / "status").touch()
        listed = run(
            ["apt-get", "indextargets", "--format", "$(SITE) $(ARCHITECTURE)", "Origin: Debian", "Label: Debian"]
        )
        if not listed:
            raise ProviderError("apt is configured with no mirror of Debian: needed one for its packages of arm64")
        site, here = listed[0].split()
        lines = [f"{kind} [arch={here},arm64 signed-by={KEYS}] {site} {suite} main\n" for kind, suite in entries]
        (state / "sources.list").write_text("".join(lines))
        options = {
            "Dir::Etc::SourceList": state / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State": state,
            "Dir::State::Lists": state / "lists",
            "Dir::State::status": state / "status",
            "APT::Sandbox::User": "",
            "APT::Architectures": f"{here},arm64",
        }
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        self._words = ["apt-get", "--quiet=2", *given]
        run([*self._words, "update"])

    def unpack(self, packages: Sequence[str], into: Path, kept: Sequence[str] = ("*",)) -> None:
        """Fetch packages with all that they depend on, and unpack those whose file has a name like one of `kept`.

        No script of theirs is run.
        """
        with tempfile.TemporaryDirectory(dir=into.parent) as cache:
            cached = [*self._words, "-o", f"Dir::Cache={cache}"]
            (Path(cache) / "archives" / "partial").mkdir(parents=True)
            run([*cached, "--yes", "--no-install-recommends", "--download-only", "install", *packages])
            for archive in sorted(path for name in kept for path in (Path(cache) / "archives").glob(f"{name}.deb")):
                run(["dpkg-deb", "-x", str(archive), str(into)])

    def source(self, package: str, into: Path) -> Path:
        """Fetch what a package was made of, without Debian's own changes, and unpack it; return its folder."""
        into.mkdir()
        run([*self._words, "source", "--download-only", package], folder=into)
        for archive in into.glob("*.orig.tar.*"):
            run(["tar", "-xf", str(archive)], folder=into)
        return next(path for path in into.iterdir() if path.is_dir())


def check_here(programs: Sequence[str]) -> None:
    """Raise ProviderError, with Debian's packages to install, unless all of the programs are on the PATH."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        packages = ", ".join(PACKAGED.get(name, name) for name in missing)
        needed = f"{', '.join(programs[:-1])} and {programs[-1]}"
        raise ProviderError(f"{missing[0]} is not here: needed {needed}; what is missing is in Debian's {packages}")


def run(words: Sequence[str], folder: Path | None = None, settings: Mapping[str, str] | None = None) -> list[str]:
    """The lines that a program printed. Raises ProviderError with the end of what one that failed said.

    folder: in which it runs. settings: of its environment, beside this process's.
    """
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=folder,
        env={**os.environ, **(settings or {})},
    )  # fmt: skip
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-LONGEST:] or f"exit code {done.returncode}"
        raise ProviderError(f"{Path(words[0]).name} failed while the emulator of arm64 was set up: {said}")
    return done.stdout.splitlines()
