"""Bytes after gzip: those that gzip itself writes, whatever the size of a file."""

import gzip

import numpy as np
import pytest

from onnxslim_bert.graph.download import AT_ONCE, download_bytes


@pytest.mark.parametrize("size", [0, 5, AT_ONCE, AT_ONCE + 7])
def test_it_is_what_gzip_makes_of_each_file(tmp_path, size):
    """The header of a file with a name is longer; without one it is the same."""
    values = np.random.default_rng(3).integers(0, 9, size, np.uint8).tobytes()
    (tmp_path / "one").write_bytes(values)
    (tmp_path / "other").write_bytes(b"other")
    one, other = len(gzip.compress(values, 6)), len(gzip.compress(b"other", 6))
    assert download_bytes([tmp_path / "one", tmp_path / "other"]) == one + other
