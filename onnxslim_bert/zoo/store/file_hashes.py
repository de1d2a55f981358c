"""sha256 of files, remembered, so that large files that did not change are not read again."""

import time
from pathlib import Path

from onnxslim_bert.errors import DataError, disarmed
from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.zoo.store.state_file import StateFile

SETTLED = 2.0  # seconds: within the resolution of a file system's clock, a second change could look like the first one


def sha256_of(path: Path, state: StateFile) -> str:
    """sha256 of the file, read again only when its size, time or inode has changed. Raises DataError."""
    try:
        place, found = path.resolve(), path.stat()
        named = disarmed(str(place))  # a text, whatever its bytes are; the inode tells two of one text apart
        stamp = (found.st_size, found.st_mtime_ns, found.st_ino)
        known = state.rows("SELECT size, mtime_ns, inode, sha256 FROM hashes WHERE path = ?", named)
        if known and known[0][:3] == stamp:
            return str(known[0][3])
        sha256 = file_sha256(place)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if time.time() - found.st_mtime > SETTLED:
        with state.change() as db:
            db.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?)", (named, *stamp, sha256))
    return sha256
