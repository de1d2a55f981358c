"""An emulator of 64-bit ARM that counts instructions: QEMU built with plugins, which Debian's is without, and a plugin.

What is counted are instructions that a program executes, each as one, whatever it does: no time and no cycles.
"""

import platform
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.targets.arm64.debian import SUITE, Apt, check_here, run
from onnxslim_bert.targets.arm64.emulator import EMULATOR, NEEDED, cache

PLUGIN = "counter.so"
SOURCE = Path(__file__).with_name("counter.c")
BUILT_BY = ("gcc", "make", "ninja", "pkg-config")
WITHOUT = ("system", "tools", "docs", "debug-info", "install-blobs", "werror")
HEADERS = ("lib[gps]*-dev_*", "zlib*-dev_*")  # glib's and what it is made with; the C library's are the system's own
COMMAND = "onnxslim doctor --set-up-arm64-counts"


def folder() -> Path:
    """Where it is, or would be."""
    return cache() / "arm64-counts"


def counted(start: Sequence[str], log: Path) -> tuple[str, ...]:
    """The words `start`, which start a program in the emulator, so that its instructions are counted into `log`.

    Raises ProviderError when this emulator is not set up.
    """
    root = folder()
    if not root.is_dir():
        raise ProviderError(f"what counts instructions of 64-bit ARM is not set up: `{COMMAND}` does, in {root}")
    return (str(root / EMULATOR), "-plugin", str(root / PLUGIN), "-d", "plugin", "-D", str(log), *start[1:])


def last_run(log: str) -> int:
    """Instructions between the last two places that the program marked. log: a count so far on each line."""
    before, after = log.split()[-2:]
    return int(after) - int(before)


def set_up(report: Callable[[str], None]) -> Path:
    """Fetch QEMU's source of Debian, build its emulator of 64-bit ARM and the plugin; return their folder.

    Takes about five minutes of one CPU. Nothing of the system is changed (`debian.Apt`), and the folder appears when it
    is whole. report: told each step. Raises ProviderError when a program is missing, or with what one that failed said.
    """
    final = folder()
    if final.is_dir():
        return final
    check_here((*NEEDED, *BUILT_BY))
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".arm64-counts-") as made:
        root, build, glib = (Path(made) / name for name in ("root", "build", "glib"))
        report("looking sources up")
        own = platform.freedesktop_os_release()["VERSION_CODENAME"]
        apt = Apt(Path(made) / "apt", ("deb", own), ("deb-src", SUITE))
        report("fetching QEMU's source")
        source = apt.source("qemu", Path(made) / "source")
        apt.unpack(["libglib2.0-dev"], glib, HEADERS)
        wheels = tomllib.loads((source / "pythondeps.toml").read_text())["meson"]
        run([
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(source / "python/wheels")),
            *(f"{name}=={wheel.get('installed')}" for name, wheel in wheels.items()),
        ])  # fmt: skip
        report("configuring it")
        build.mkdir()
        # static libraries lie beside the headers, so that what is built needs no other library where it runs
        static = {
            "PKG_CONFIG": "pkg-config --static",
            "PKG_CONFIG_SYSROOT_DIR": str(glib),
            "PKG_CONFIG_LIBDIR": str(next(glib.glob("usr/lib/*/pkgconfig"))),
        }
        run(
            [
                *(str(source / "configure"), f"--python={sys.executable}", "--target-list=aarch64-linux-user"),
                *("--enable-plugins", "--without-default-features", *(f"--disable-{part}" for part in WITHOUT)),
            ],
            build,
            static,
        )
        report("building it, which takes minutes")
        run(["ninja", EMULATOR], build)
        root.mkdir()
        (build / EMULATOR).rename(root / EMULATOR)
        flags = run(["pkg-config", "--cflags", "glib-2.0"], settings=static)[0].split()
        headers = ["-I", str(source / "include" / "qemu"), *flags]
        run(["gcc", "-O2", "-shared", "-fPIC", *headers, "-o", str(root / PLUGIN), str(SOURCE)])
        root.rename(final)
    return final
