"""Hold a made model to its budgets, and write the record of what was measured to the end of its file."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.errors import DataError
from onnxslim_bert.graph.download import download_bytes
from onnxslim_bert.graph.files import model_files
from onnxslim_bert.job.measured import Measured, record
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.gates import Budgets, Verdict
from onnxslim_bert.proof.verdicts import judge

UNTIMED = "nothing on this machine runs it at the speed of its target"


@dataclass(frozen=True)
class Gate:
    """The budgets that a model must meet to be written.

    strict: a verdict that the evaluation rows cannot decide (inconclusive) fails, too. Example: Budgets(max_drop=1) and
    a drop of 0.5 points with the 95 % interval -0.5 to 1.5 is inconclusive: written, unless strict.
    """

    budgets: Budgets = field(default_factory=Budgets)
    strict: bool = False

    def check(self, evaluation: Dataset | None) -> None:
        """Raise DataError when a budget needs evaluation rows, or labels, that `evaluation` does not have."""
        drop = self.budgets.max_drop
        if evaluation is None and self.budgets.judges_rows:
            raise DataError(f"a budget for {self.budgets.on_rows} needs evaluation texts: name some with --data")
        if evaluation is not None and drop is not None and not evaluation.is_labelled:
            raise DataError(f"a budget for the drop needs labels, and '{evaluation.name}' has none: name their column")

    def fails(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether these verdicts keep a model from being written; without any budget, none does."""
        return self.budgets != Budgets() and any(verdict.fails(self.strict) for verdict in verdicts)


OPEN = Gate()


def seal(
    path: Path,
    measured: Measured,
    comparison: Comparison | None = None,
    latencies: Sequence[Latency] = (),
    beside: Sequence[Path] = (),
) -> tuple[Verdict, ...]:
    """Judge the model file at `path`, write its record to its end, and return the verdicts.

    The record counts for the file's size, so the verdict on the size is that of the file with its record.

    measured: the record without the file's hash and the verdicts, which are filled in here. comparison: with the
    source. latencies: of the source, then of the model; empty where nothing was timed. beside: other files that
    count for the size, such as those of its folder. Raises as `judge` does, and OutputError.
    """
    verdicts: tuple[Verdict, ...] = ()
    for _ in range(2):  # the size includes the record, which holds the verdict on the size
        verdicts = verdicts_on(comparison, measured.budgets, latencies, [*model_files(path), *beside])
        record(path, measured.sealing(path, verdicts))
    return verdicts


def verdicts_on(
    comparison: Comparison | None, budgets: Budgets, latencies: Sequence[Latency], files: Sequence[Path]
) -> tuple[Verdict, ...]:
    """A verdict on every budget; that on the speed-up is inconclusive without latencies. Raises as `judge` does.

    files: those whose size counts.
    """
    nbytes = sum(file.stat().st_size for file in files)
    download = None if budgets.max_download is None else download_bytes(files)
    if budgets.min_speedup is None or latencies:
        speedup = latencies[1].speedup if latencies else None
        return judge(comparison, budgets, speedup=speedup, nbytes=nbytes, download=download)
    timeless = judge(comparison, replace(budgets, min_speedup=None), nbytes=nbytes, download=download)
    return (*timeless, Verdict("min-speedup", "inconclusive", UNTIMED))
