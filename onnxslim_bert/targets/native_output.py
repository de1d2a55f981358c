"""What libraries write to the process's own stdout and stderr, past Python."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Caught:
    """text: what was written, there once the block has ended."""

    text: str = ""


@contextlib.contextmanager
def native_output() -> Iterator[Caught]:
    """Keep everything that is written meanwhile: QNN prints a line on stdout, and logs go to stderr."""
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
