"""Say so when a file is cut short while it is read.

Weights are mapped, not read. When somebody truncates their file meanwhile, touching them is a bus error (SIGBUS), which
would end the process without a word: a handler of Python's own never runs, since the access that failed is tried again
first. A C handler that calls Python runs at once; it removes what is temporary, says what was cut and ends the process.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from onnxslim_bert.errors import SlimError, printable
from onnxslim_bert.graph.claims import remove_held

MAPS = Path("/proc/self/maps")


@contextlib.contextmanager
def said_when_cut() -> Iterator[None]:
    """In the block, a bus error is one line and exit code 2."""
    if not hasattr(signal, "SIGBUS"):
        yield
        return

    def end(_number: int) -> None:
        with contextlib.suppress(BaseException):
            remove_held()
            names = ", ".join(printable(path.name) for path in cut_files()) or "a file"
            os.write(
                2, f"onnxslim: {names} was cut short while it was read; nothing was written: run it again\n".encode()
            )
        os._exit(SlimError.exit_code)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(end)
    install = ctypes.CDLL(None).signal
    install.argtypes, install.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    before = install(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        install(signal.SIGBUS, before)


def cut_files() -> list[Path]:
    """The mapped files that are shorter now than what is mapped of them."""
    found: dict[Path, None] = {}
    for line in MAPS.read_text().splitlines() if sys.platform == "linux" else ():
        place, rights, offset, _, _, *name = line.split(maxsplit=5)
        start, end = (int(number, 16) for number in place.split("-"))
        path = Path(name[0]) if name and rights == "r--s" else None  # weights; libraries are private
        with contextlib.suppress(OSError):
            if path is not None and path.stat().st_size <= int(offset, 16) + end - start - os.sysconf("SC_PAGESIZE"):
                found[path] = None
    return list(found)
