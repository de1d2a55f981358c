"""The last step before a model gets its name: hold it to its budgets, and write into it what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.errors import DataError
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.job.measured import Measured, record
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.gates import Budgets, Verdict
from onnxslim_bert.proof.verdicts import judge

UNTIMED = "nothing on this machine runs it at the speed of its target"


@dataclass(frozen=True)
class Gate:
    """What a model is held to. strict: a verdict that the data cannot carry fails, too."""

    budgets: Budgets = field(default_factory=Budgets)
    strict: bool = False

    def check(self, evaluation: Dataset | None) -> None:
        """Raise DataError, before anything is made, when these rows cannot judge what is asked."""
        drop, agreement = self.budgets.max_drop, self.budgets.min_agreement
        if evaluation is None and (drop, agreement) != (None, None):
            raise DataError("a budget for the drop or the agreement needs evaluation texts: name some with --data")
        if evaluation is not None and drop is not None and not evaluation.is_labelled:
            raise DataError(f"a budget for the drop needs labels, and '{evaluation.name}' has none: name their column")

    def fails(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether a model with these verdicts is not to be published. Without budgets any is."""
        return self.budgets != Budgets() and any(verdict.fails(self.strict) for verdict in verdicts)


OPEN = Gate()


def seal(
    path: Path,
    measured: Measured,
    comparison: Comparison | None = None,
    latencies: Sequence[Latency] = (),
    shared: int = 0,
) -> tuple[Verdict, ...]:
    """Write what was measured of the model file at `path` to its end; the verdicts on it as it then is.

    measured: all but the file's hash and the verdicts, which are filled in here. comparison: with its source.
    latencies: of the source, then of the model; empty where nothing was timed. shared: bytes that belong to it besides
    its own files. Raises as `judge` does, and OutputError.
    """
    verdicts: tuple[Verdict, ...] = ()
    for _ in range(2):  # the record counts for the size, and holds the verdict on it
        verdicts = verdicts_on(comparison, measured.budgets, latencies, model_bytes(path) + shared)
        record(path, measured.sealing(path, verdicts))
    return verdicts


def verdicts_on(
    comparison: Comparison | None, budgets: Budgets, latencies: Sequence[Latency], nbytes: int
) -> tuple[Verdict, ...]:
    """A verdict on every budget; a speed-up that nothing here can show is inconclusive. Raises as `judge` does."""
    if budgets.min_speedup is None or latencies:
        return judge(comparison, budgets, speedup=latencies[1].speedup if latencies else None, nbytes=nbytes)
    timeless = judge(comparison, replace(budgets, min_speedup=None), nbytes=nbytes)
    return (*timeless, Verdict("min-speedup", "inconclusive", UNTIMED))
