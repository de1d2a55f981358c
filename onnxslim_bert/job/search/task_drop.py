"""How much of the task metric a model loses against its source, in points."""

from functools import cached_property
from pathlib import Path

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.job.deployment import ON_CPU, Deployment
from onnxslim_bert.proof.class_losses import ClassLoss, class_losses
from onnxslim_bert.proof.comparison import compare
from onnxslim_bert.proof.evaluation import answer, evaluate
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.targets.places import Places
from onnxslim_bert.targets.table import target_named


class TaskDrop:
    """A function of a model file: the points of the task metric that it loses against `source` on `rows`.

    With labels: the drop of the metric, below 0 for a gain. Without labels: the percent of rows to which it gives
    another class than the source, which is the most that accuracy can drop; of scores, what the correlation with the
    source's lacks to 1, and of embeddings what the mean cosine does, times 100. Example: a correlation of 0.98: 2.
    100 when any answer is NaN or infinite. The candidate runs on the target of `where`, the source on the CPU.
    """

    def __init__(self, source: Path, rows: Dataset, working: Working, where: Deployment = ON_CPU) -> None:
        self.rows = rows
        self._path = source
        self._working = working
        self._where = where

    def __call__(self, candidate: Path) -> float:
        seen = compare(self._source, self._answers(candidate), self.rows, seed=self._working.seed)
        if seen.broken:
            return 100.0
        if seen.scores:
            return seen.scores[0].drop.value
        close = seen.fidelity
        if close.agreement is not None:
            return 100 - close.agreement.value
        return 100 - close.correlation if close.correlation is not None else 100 * (1 - (close.cosine or 0.0))

    def losses(self, candidate: Path) -> tuple[ClassLoss, ...]:
        """What `candidate` loses and gains of the rows of each label; empty where they have no classes."""
        return class_losses(self._source, self._answers(candidate), self.rows) if self.rows.is_labelled else ()

    def _answers(self, candidate: Path) -> Outputs:
        target = target_named(self._where.target)
        places = Places((target,), self._where.allow_fallback)
        session = places.open(target, candidate, threads=self._working.threads).session
        return answer(session, candidate, self.rows, self._working, target=target, like=self._source)

    @cached_property
    def _source(self) -> Outputs:
        return evaluate(self._path, self.rows, self._working)
