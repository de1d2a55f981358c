"""What a candidate loses on rows that are in no calibration."""

from functools import cached_property
from pathlib import Path

from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.proof.comparison import compare
from onnxslim_bert.proof.evaluation import evaluate
from onnxslim_bert.proof.outputs import Outputs


class TaskDrop:
    """The points of the task metric that a file loses against `source` on `rows`.

    Without labels, the percentage of rows on which it does not answer as the source does, as accuracy drops by no more;
    of scores and embeddings, what their correlation or their mean cosine lacks to 1, in points. 100 for NaN.
    """

    def __init__(self, source: Path, rows: Dataset, working: Working) -> None:
        self.rows = rows
        self._path = source
        self._working = working

    def __call__(self, candidate: Path) -> float:
        seen = compare(self._source, self._answers(candidate, self._source), self.rows, seed=self._working.seed)
        if seen.broken:
            return 100.0
        if seen.scores:
            return seen.scores[0].drop.value
        close = seen.fidelity
        if close.agreement is not None:
            return 100 - close.agreement.value
        return 100 - close.correlation if close.correlation is not None else 100 * (1 - (close.cosine or 0.0))

    @cached_property
    def _source(self) -> Outputs:
        return self._answers(self._path)

    def _answers(self, path: Path, like: Outputs | None = None) -> Outputs:
        return evaluate(path, self.rows, self._working, like=like)
