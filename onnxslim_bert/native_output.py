"""Catch what libraries write straight to the process's stdout and stderr, past Python's streams."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Caught:
    """What was caught. text: everything that was written; it is there once the block has ended."""

    text: str = ""


@contextlib.contextmanager
def native_output() -> Iterator[Caught]:
    """Catch what is written to stdout and stderr while the block runs: QNN prints on stdout, logs go to stderr."""
    caught = Caught()
    _flush()
    with tempfile.TemporaryFile() as file, contextlib.ExitStack() as stack:
        for stream in (1, 2):
            kept = os.dup(stream)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, stream)
            os.dup2(file.fileno(), stream)
        try:
            yield caught
        finally:
            _flush()
            stack.close()
            file.seek(0)
            caught.text = file.read().decode(errors="replace")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, AttributeError):  # closed, or none at all
            stream.flush()
