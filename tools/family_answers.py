"""A source's answers on made-up rows of many lengths, and how far a candidate's are from them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array

LENGTHS = (1, 2, 7, 16, 63, 128)
LONGEST = 512
DRAWS = 4  # of ids for each length and mask: a head of five logits answers too little on one to tell files apart
READY = 2  # ready rows at once


class SourceAnswers:
    """The source's answers on rows of many lengths; a candidate is held against them."""

    def __init__(self, source: Path, vocabulary: int, ready: dict[str, Array]) -> None:
        self.source = _session(source)
        self.rows: list[tuple[dict[str, Array], Array]]
        self.answers: list[list[Array]]
        self.vocabulary = vocabulary
        if ready:
            first = next(iter(ready.values()))
            real = np.ones((READY, 1), bool)
            self.rows = [({n: x[i : i + READY] for n, x in ready.items()}, real) for i in range(0, len(first), READY)]
            self.answers = [[np.asarray(output) for output in self.source.run(None, given)] for given, _ in self.rows]
            return
        sizes = [*LENGTHS, last] if (last := self._last()) > LENGTHS[-1] else [n for n in LENGTHS if n <= last]
        if last not in sizes:
            sizes.append(last)
        self.rows, self.answers = [], []
        for given, real in (row for size in sizes for draw in range(DRAWS) for row in self._rows(size, draw)):
            try:
                answers = self.source.run(None, given)
            except Exception:  # an export that runs at some lengths alone is compared at those
                continue
            self.rows.append((given, real))
            self.answers.append([np.asarray(output) for output in answers])

    def compare(self, candidate: Path) -> tuple[float, float, float]:
        """The least and the mean cosine of a row's answers with the source's, and the largest difference."""
        session = _session(candidate)
        cosines: list[float] = []
        largest = 0.0
        for (given, real), wanted in zip(self.rows, self.answers, strict=True):
            got = [np.asarray(output) for output in session.run(None, given)]
            for ours, theirs in zip(got, wanted, strict=True):
                if theirs.dtype.kind != "f":
                    continue
                is_rows = theirs.ndim > 1 and theirs.shape[:2] == real.shape
                pair = [np.where(_like(real, x), x, 0) if is_rows else x for x in (ours, theirs)]
                if not np.isfinite(pair[0]).all():
                    return float("nan"), float("nan"), float("inf")
                largest = max(largest, float(np.abs(pair[0] - pair[1]).max()))
                for a, b in zip(*pair, strict=True):
                    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
                    cosines.append(float(np.vdot(a, b)) / norms if norms else 1.0)
        return min(cosines, default=1.0), float(np.mean(cosines)) if cosines else 1.0, largest

    def _last(self) -> int:
        """The longest row, up to LONGEST, that the source takes."""
        low, high = 1, LONGEST + 1
        while high - low > 1:
            middle = (low + high) // 2
            try:
                self.source.run(None, next(self._rows(middle))[0])
                low = middle
            except Exception:  # onnxruntime's exceptions have no public base
                high = middle
        return low

    def _rows(self, length: int, draw: int = 0) -> Iterator[tuple[dict[str, Array], Array]]:
        """Feeds of two rows of `length` tokens, and which tokens are real: not padded, left, right, with holes."""
        rng = np.random.default_rng((length, draw))
        ids = rng.integers(5, self.vocabulary, (2, length))
        places = np.arange(length)
        short = max(1, length // 2)
        masks = [np.ones((2, length), bool)]
        if length > 1:
            masks += [
                np.stack([places < short, places < length]),
                np.stack([places >= length - short, places < length]),
            ]
        if length > 3:
            masks.append(np.stack([places % 3 != 1, places < length]))
        for mask in masks:
            yield {t.name: self._feed(t, np.where(mask, ids, 0), mask) for t in self.source.get_inputs()}, mask

    @staticmethod
    def _feed(tensor: ort.NodeArg, ids: Array, mask: Array) -> Array:
        dtype = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}.get(tensor.type, np.float32)
        name = tensor.name.lower()
        if "mask" in name:
            return mask.astype(dtype)
        if "type" in name or "segment" in name:
            return np.zeros(ids.shape, dtype)
        if "position" in name:
            return np.broadcast_to(np.arange(ids.shape[1]), ids.shape).astype(dtype)
        return ids.astype(dtype)


def _like(real: Array, values: Array) -> Array:
    return real.reshape(real.shape + (1,) * (values.ndim - 2))


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
