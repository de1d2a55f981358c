"""Stand-ins for what sets the emulators of 64-bit ARM up, as the real ones as far as they are asked."""

import os

import pytest

from onnxslim_bert.targets.arm64 import emulator

PROGRAMS = {
    "apt-get": """case "$*" in
*indextargets*) echo "mirror:/debian amd64" ;;
*install*)
    for word in "$@"; do
        case $word in Dir::Cache=*) touch "${word#Dir::Cache=}/archives/libglib2.0-dev_1_amd64.deb" ;; esac
    done ;;
*" source "*) touch qemu_1.orig.tar.xz ;;
esac""",
    "dpkg-deb": 'mkdir -p "$3/usr/bin" "$3/usr/lib/here/pkgconfig" && touch "$3/usr/bin/qemu-aarch64"',
    "tar": """mkdir qemu-1
printf '[meson]\\nmeson = { installed = "1.5.0" }\\n' > qemu-1/pythondeps.toml
printf '#!/bin/sh\\ntest -d "$PKG_CONFIG_LIBDIR"\\n' > qemu-1/configure
chmod +x qemu-1/configure""",
    "ninja": 'touch "$1"',
    "pkg-config": 'echo "-I$PKG_CONFIG_SYSROOT_DIR"',
    "gcc": 'while [ "$1" != -o ]; do shift; done; touch "$2"',
    "make": "exit 1",
    "python": 'case "$*" in *--target*) mkdir "$6" ;; *meson==1.5.0) ;; *) exit 1 ;; esac',
}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The folder of the stand-ins, first on the PATH, and an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(emulator.sys, "executable", str(folder / "python"))
    return folder
