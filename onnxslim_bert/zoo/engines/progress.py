"""How far a task is: said by its process in a file of its workspace, read by whoever looks after it."""

import contextlib
import json
import os
import time
from pathlib import Path

from onnxslim_bert.progress import Progress

EVERY = 0.2  # seconds between two words of a task


def teller(folder: Path) -> Progress:
    """For the task whose files go to `folder`: a callback that says how far it is, not more often than anyone looks."""
    place, said = place_of(folder), 0.0

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= EVERY or done == total:
            said = time.monotonic()
            with contextlib.suppress(OSError):  # it is for people, and no reason to fail
                place.with_suffix(".new").write_text(json.dumps([stage, done, total]))
                os.replace(place.with_suffix(".new"), place)

    return tell


def said_in(folder: Path) -> tuple[str, int, int] | None:
    """What the task last said; None before its first word."""
    try:
        stage, done, total = json.loads(place_of(folder).read_text())
        return str(stage), int(done), int(total)
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None


def place_of(folder: Path) -> Path:
    """The file in which the task says how far it is: beside the folder of its own files, not in it."""
    return folder.with_name("progress")
