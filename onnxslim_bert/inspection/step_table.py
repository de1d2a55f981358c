"""What each step of a recipe is worth: size, parameters, FLOPs, latency and task metric of the model after it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.inspection.inspection import inspect
from onnxslim_bert.proof.comparison import Comparison, compare
from onnxslim_bert.proof.evaluate_once import evaluate_once
from onnxslim_bert.proof.evaluation import evaluate
from onnxslim_bert.proof.time_against import time_against
from onnxslim_bert.targets.table import CPU


@dataclass(frozen=True)
class StepMeasured:
    """The model after a step, on the CPU provider.

    step: the name of its file. nbytes: with external data. parameters, flops: as in `inspection.costs.Cost`, for a row
    of `length` tokens; None where no encoder is found. ms: milliseconds a run; speedup: times the source's speed in the
    same interleaved run; None where it cannot be timed. comparison: with the source; None without evaluation rows.
    """

    step: str
    nbytes: int
    parameters: int | None
    flops: int | None
    ms: float | None
    speedup: float | None
    comparison: Comparison | None


def measure_steps(
    source: Path, files: Sequence[Path], evaluation: Dataset | None, working: Working
) -> Iterator[StepMeasured]:
    """Measure each of `files`, models that were made of `source`, against it.

    Raises ModelError for a file that does not run, DataError for rows that a model cannot be fed.
    """
    before = None if evaluation is None else evaluate_once(source, evaluation, working)
    for file in files:
        found = inspect(file, seq=min(128, working.max_length)).encoder
        latencies = time_against(source, file, CPU, working, (evaluation,))
        seen = None
        if evaluation is not None and before is not None:
            seen = compare(before, evaluate(file, evaluation, working, like=before), evaluation, seed=working.seed)
        yield StepMeasured(
            file.stem,
            model_bytes(file),
            sum(cost.parameters for cost in found.costs) if found else None,
            sum(cost.flops for cost in found.costs) if found else None,
            latencies[1].usual_ms if latencies else None,
            latencies[1].speedup.value if latencies else None,
            seen,
        )
