"""How fast a written model is against its source: the one workload by which `quantize` and `verify` judge it."""

from pathlib import Path

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.graph.signature import fixed_axes
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.proof.bench import Latency, Rounds, bench
from onnxslim_bert.targets.table import CPU
from onnxslim_bert.targets.target import Target

BATCH, LENGTH, ROUNDS = 1, 128, 30


def time_against(source: Path, model: Path, target: Target, working: Working) -> tuple[Latency, ...]:
    """The source on the CPU provider and the model on `target`, interleaved; empty where `target` cannot be timed here.

    One row, or the batch that the model fixes, of 128 tokens, or `working.max_length` where that is less.
    """
    if target.emulated or target.absent():
        return ()
    shapes = (tensor.type.tensor_type.shape.dim for tensor in read_skeleton(model)[0].graph.input)
    batch, _ = fixed_axes([axis.dim_value or None for axis in axes] for axes in shapes)
    return bench(
        [(source, CPU), (model, target)],
        working,
        batch_sizes=[batch or BATCH],
        lengths=[min(LENGTH, working.max_length)],
        rounds=Rounds(ROUNDS),
        footprints=False,
    ).latencies
