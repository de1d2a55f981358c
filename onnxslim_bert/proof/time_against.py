"""How fast a written model is against its source: the one workload by which `quantize` and `verify` judge it."""

from collections.abc import Sequence
from pathlib import Path

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError
from onnxslim_bert.graph.exits import leaves_early
from onnxslim_bert.graph.signature import declared_axes
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.model.input_roles import roles_of
from onnxslim_bert.model.role_names import parse_named
from onnxslim_bert.proof.bench import Latency, Rounds, bench
from onnxslim_bert.targets.places import CPU_ONLY, Places
from onnxslim_bert.targets.table import CPU
from onnxslim_bert.targets.target import Target

BATCH, LENGTH, ROUNDS = 1, 128, 30
SECONDS = 3.0  # in all of those rounds, where a model is large
TEXTS = 200  # of which a model is timed that lets texts leave early


def time_against(
    source: Path,
    model: Path,
    target: Target,
    working: Working,
    given: Sequence[Dataset | None] = (),
    places: Places = CPU_ONLY,
) -> tuple[Latency, ...]:
    """The source on the CPU provider and the model on `target`, interleaved; empty where `target` cannot be timed here.

    One row, or the batch that the model fixes, of 128 tokens, or `working.max_length` where that is less. A model that
    takes no text (an image, a sound) is timed on the first of the data sets `given` that holds ready inputs. One that
    lets texts leave early is timed on TEXTS rows of the first of them, and not at all without one.

    places: what `model` may be open on already.
    """
    if target.emulated or target.absent():
        return ()
    early = leaves_early(model)
    dataset = next((rows for rows in given if rows is not None), None) if early else _ready(source, working, given)
    if early and dataset is None:
        return ()
    batch, _ = declared_axes(read_skeleton(model)[0].graph)
    return bench(
        [(source, CPU), (model, target)],
        working,
        batch_sizes=[batch or BATCH],
        lengths=[min(LENGTH, working.max_length)],
        dataset=dataset,
        rounds=Rounds(TEXTS) if early else Rounds(ROUNDS, seconds=SECONDS),
        footprints=False,
        places=places,
    ).latencies


def _ready(source: Path, working: Working, given: Sequence[Dataset | None]) -> Dataset | None:
    """The ready inputs among `given` where `source` takes no text; None where it does, or none are given."""
    try:
        roles_of(source, parse_named(working.inputs), threads=working.threads)
    except DataError:
        return next((rows for rows in given if rows is not None and rows.feeds is not None), None)
    return None
