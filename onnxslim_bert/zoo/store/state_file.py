"""The SQLite file of a zoo's state: its tables, its version and its errors."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnxslim_bert.errors import OutputError

VERSION = 1
PATIENCE_S = 30.0  # for others to finish their change
SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL DEFAULT '', name TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT 'waiting', attempts INTEGER NOT NULL DEFAULT 0, started REAL, ended REAL,
    seconds REAL NOT NULL DEFAULT 0, cpu_seconds REAL NOT NULL DEFAULT 0, peak_bytes INTEGER NOT NULL DEFAULT 0,
    message TEXT NOT NULL DEFAULT '', exit_code INTEGER NOT NULL DEFAULT 0, worker TEXT NOT NULL DEFAULT '',
    memory INTEGER, timeout REAL, run INTEGER
);
CREATE TABLE IF NOT EXISTS hashes (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    sha256 TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, what TEXT NOT NULL, worker TEXT NOT NULL, started REAL NOT NULL, ended REAL, outcome TEXT
);
"""


class StateFile:
    """The open file `path`, made when it is not there. A process killed in a change leaves the file as before it.

    Raises OutputError when the file is no such state, was written by a newer version, or cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._said():
            try:
                self._open(str(path))
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN or not path.is_file():
                    raise
                # where nothing can be written, what is in the file can be read all the same
                self._open(f"{path.absolute().as_uri()}?immutable=1", uri=True)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a SELECT finds."""
        with self._said():
            return self._db.execute(query, values).fetchall()

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk when the block ends."""
        with self._said(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db

    def _open(self, name: str, *, uri: bool = False) -> None:
        self._db = sqlite3.connect(name, timeout=PATIENCE_S, isolation_level=None, uri=uri)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        """Make the tables, or find them made. Others may be at it: a change of the journal does not wait for them."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._prepare_now()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def _prepare_now(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise OutputError(
                f"{self.path}: written by a newer onnxslim-bert (its version {version}, here {VERSION}); update it here"
            )
        foreign = self._db.execute("SELECT type, name FROM sqlite_master WHERE type IN ('view', 'trigger')").fetchone()
        if foreign:  # a query of ours would run what somebody wrote there, without end perhaps
            raise OutputError(f"{self.path}: no state of a zoo, it has the {foreign[0]} {foreign[1]}; move it away")
        if version == 0:
            self._db.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
            self._db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"{self.path}: cannot be used ({error}); check its rights and the disk's space"
            ) from error
        except sqlite3.DatabaseError as error:
            raise OutputError(
                f"{self.path}: no state of a zoo, or a damaged one ({error}); move it away and run the zoo again, "
                "finished results are found again"
            ) from error
