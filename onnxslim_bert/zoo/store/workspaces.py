"""Temporary folders whose names say who owns them, so that those of killed processes are told from those in use."""

import contextlib
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from onnxslim_bert.graph.held_signals import no_signals

NAME = re.compile(r"\d+@[^/@]*@[a-z0-9_]+")  # a process, its machine, and what tempfile adds
ELSEWHERE = 86400.0  # seconds after which a folder of another machine's process, which cannot be asked, is abandoned


@contextlib.contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, gone in the end."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{os.getpid()}@{platform.node()}@"))
    try:
        yield folder
    finally:
        with no_signals():
            shutil.rmtree(folder, ignore_errors=True)


def abandoned(parent: Path) -> list[Path]:
    """The workspaces in `parent` whose process is no more; what is called otherwise, or is no folder, is none."""
    found = [folder for folder in sorted(parent.glob("*@*@*")) if NAME.fullmatch(folder.name)]
    return [folder for folder in found if folder.is_dir() and not folder.is_symlink() and not _has_owner(folder)]


def _has_owner(folder: Path) -> bool:
    pid, host, _ = folder.name.split("@", 2)
    try:
        born = folder.stat().st_mtime
    except FileNotFoundError:  # gone meanwhile
        return True
    if host != platform.node():
        return time.time() - born < ELSEWHERE
    try:
        return bool(psutil.Process(int(pid)).create_time() <= born + 1)
    except (psutil.Error, ValueError):
        return False
