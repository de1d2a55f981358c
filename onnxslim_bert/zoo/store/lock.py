"""A lock that one process has, until it ends however it ends: that of SQLite on an empty file."""

import contextlib
import sqlite3
from pathlib import Path

MOMENT = 1.0  # seconds to wait for it, as a process that only looks whether it is held has it for a moment


def hold(path: Path) -> sqlite3.Connection:
    """Take the lock; it is held until the returned connection is closed, at the latest when the process ends.

    Raises sqlite3.Error when another process has it.
    """
    lock = sqlite3.connect(path, timeout=MOMENT)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except BaseException:
        lock.close()
        raise
    return lock


def is_held(path: Path) -> bool:
    """Whether anybody has the lock; nothing is written."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=0, uri=True)) as lock:
            lock.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.Error as error:
        return error.sqlite_errorcode == sqlite3.SQLITE_BUSY
    return False
