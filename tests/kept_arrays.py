"""A cache in memory, which holds arrays as files of numpy do."""

import io
from collections.abc import Mapping

import numpy as np

from onnxslim_bert.arrays import Array


class Kept:
    """files: what was put, by key. got: the keys that were asked for and there."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.got: list[str] = []

    def get(self, key: str) -> dict[str, Array] | None:
        if key not in self.files:
            return None
        self.got.append(key)
        with np.load(io.BytesIO(self.files[key]), allow_pickle=False) as held:
            return {name: held[name] for name in held.files}

    def put(self, key: str, arrays: Mapping[str, Array]) -> None:
        assert key not in self.files, "measured twice"
        file = io.BytesIO()
        np.savez(file, **arrays)
        self.files[key] = file.getvalue()
