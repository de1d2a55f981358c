"""A "time" task: a source against everything that was made of it for one target, interleaved."""

import contextlib
import posixpath
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import ModelError, ProviderError
from onnxslim_bert.graph.signature import fixed_axes
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.job.rows import Shape, canonical_form, fitting_length
from onnxslim_bert.machine import host
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.proof.bench import Entry, Rounds, bench, check_timeable
from onnxslim_bert.proof.profile import profile
from onnxslim_bert.proof.workload import Workload, same_feeds
from onnxslim_bert.targets.places import CPU_ONLY
from onnxslim_bert.targets.table import CPU, target_named
from onnxslim_bert.targets.target import Target
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.records import Timed, Timing
from onnxslim_bert.zoo.source_files import unchanged
from onnxslim_bert.zoo.store.storage import Storage

PROFILED = 10  # runs that are profiled


def time_models(task: Task, storage: Storage, folder: Path) -> Timing:
    """The source on the CPU and its outputs on the target of `task`. It leaves no files in `folder`.

    Rows are of random ids, as many as `batch` and `length` say, or as a model's fixed shape does; models of one shape
    are timed together, each time with the source. Nothing is timed on a target that does not execute here, or of which
    only an emulator does: then there is a reason. Raises ModelError for an output that cannot be run as its source can.
    """
    asked, target = task.payload, target_named(task.payload["target"])
    shown = Timing(task.key, target.name, None, {}, host(), asked["rounds"], asked["threads"])
    if reason := why_not_timed(target):
        return replace(shown, reason=reason)
    with unchanged(asked) as source, _fetched(storage, asked["outputs"]) as outputs:
        shapes = {key: shape_of(path) for key, path in outputs.items()}
        usual = Workload(asked["batch"], longest(source, min(asked["length"], asked["max_length"])))
        groups = by_workload(shape_of(source), shapes, usual)
        timed: dict[str, Timed] = {}
        measure: Timed | None = None
        for workload, keys in groups.items():
            found = _timed([(source, CPU), *((outputs[key], target) for key in keys)], workload, asked)
            measure = measure or found[0]
            timed |= dict(zip(keys, found[1:], strict=True))
    return replace(shown, source=measure, outputs=timed)


def why_not_timed(target: Target) -> str:
    """Why times on `target` cannot be had here, or would mean nothing; "" when they can."""
    try:
        check_timeable(target)
    except ProviderError as error:
        return str(error)
    return target.absent()


def by_workload(source: Shape, outputs: Mapping[str, Shape], usual: Workload) -> dict[Workload, list[str]]:
    """Which outputs are timed on which workload: {workload: keys of outputs}, the `usual` workload first.

    source, outputs: the batch and the length that each model fixes, None where it leaves them open. An output is timed
    on the shape that it fixes, or the source does; of two fixed lengths the shorter one is taken. Example: usual 1 x
    128, one output open, one fixed to 64 tokens: the first is timed on 1 x 128, the second on 1 x 64. Without outputs
    the source is timed alone.
    """
    found: dict[Workload, list[str]] = {} if outputs else {_fitting(usual, source): []}
    for key, shape in outputs.items():
        found.setdefault(_fitting(usual, shape, source), []).append(key)
    return dict(sorted(found.items(), key=lambda group: group[0] != usual))


def _fitting(usual: Workload, *shapes: Shape) -> Workload:
    """`usual`, or what models of these shapes fix instead."""
    batches = [batch for batch, _ in shapes if batch]
    lengths = [length for _, length in shapes if length]
    return Workload(batches[0] if batches else usual.batch, min(lengths, default=usual.length))


def scaled(profile_ms: dict[str, float], total_ms: float) -> dict[str, float]:
    """`profile_ms` with the same proportions and the sum `total_ms`: a run that is profiled is a little slower."""
    whole = sum(profile_ms.values())
    return {kind: ms * total_ms / whole if whole else 0.0 for kind, ms in profile_ms.items()}


def shape_of(path: Path) -> Shape:
    """The batch and the length that the file's inputs fix."""
    graph = read_skeleton(path)[0].graph
    weights = {weight.name for weight in graph.initializer}
    inputs = [value.type.tensor_type.shape.dim for value in graph.input if value.name not in weights]
    return fixed_axes([size.dim_value or None for size in sizes] for sizes in inputs)


def longest(source: Path, length: int) -> int:
    """`length`, or as many tokens as the model has positions for where those are fewer."""
    try:
        return fitting_length(canonical_form(Model.load(source)), length)
    except ModelError:  # no encoder; it runs all the same
        return length


def _timed(entries: Sequence[Entry], workload: Workload, asked: Mapping[str, Any]) -> list[Timed]:
    """Every entry against the first, and where its milliseconds go."""
    assert workload.length is not None
    latencies = bench(
        entries,
        Working(threads=asked["threads"], seed=asked["seed"]),
        batch_sizes=[workload.batch],
        lengths=[workload.length],
        rounds=Rounds(asked["rounds"]),
        footprints=False,
    ).latencies
    return [
        Timed(replace(latency, model=path.name), scaled(_profile(path, target, workload, asked), latency.median_ms))
        for (path, target), latency in zip(entries, latencies, strict=True)
    ]


def _profile(path: Path, target: Target, workload: Workload, asked: Mapping[str, Any]) -> dict[str, float]:
    threads, seed = asked["threads"], asked["seed"]
    session = CPU_ONLY.open(target, path, threads=threads).session
    feeds = same_feeds([(path, session)], workload, None, Working(seed=seed), 1)[0][0]
    del session  # before another holds the weights
    return profile(path, target, feeds, PROFILED, threads=threads)


@contextlib.contextmanager
def _fetched(storage: Storage, outputs: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, Path]]:
    """The file of each output by its key, with what lies beside it; copies of them where the storage is no folder."""
    with tempfile.TemporaryDirectory(prefix="onnxslim-") as temporary:
        found: dict[str, Path] = {}
        for key, output in outputs.items():
            model = f"objects/{key}/{output['model']}"
            here = storage.local(model)
            if here is None:
                for name in storage.names(posixpath.dirname(model)):
                    Path(temporary, name).parent.mkdir(parents=True, exist_ok=True)
                    storage.fetch(name, Path(temporary, name))
            found[key] = here or Path(temporary, model)
        yield found
