"""A "time" task: time a source and everything that was made of it for one target, in turns."""

import contextlib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import ModelError, ProviderError
from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.graph.signature import declared_axes
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

PROFILED = 10  # runs of each model that are profiled


def time_models(task: Task, storage: Storage, folder: Path) -> Timing:
    """Time the source on the CPU and everything made of it on the target of `task`; `folder` is not used.

    Models run on `batch` rows of `length` random ids, from the task's payload, or on the shape that a model fixes.
    Models that run on one shape are timed together, and the source with each such group. A target that does not
    execute here, or only in an emulator, is not timed: the result then has a reason. Raises ModelError for a model that
    does not run on the rows of its source.
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
    """Group the outputs by the workload that they are timed on: {workload: keys of outputs}, `usual` first.

    source, outputs: the batch and the length that each model fixes, None where it leaves them open. An output is timed
    on `usual`, but with the batch and the length that it or the source fixes; where both fix a length, on the shorter.
    Without outputs there is one group, without keys, to time the source alone.

    Example: usual 1 x 128, one output open, one fixed to 64 tokens: the first is timed on 1 x 128, the other on 1 x 64.
    """
    found: dict[Workload, list[str]] = {} if outputs else {_fitting(usual, source): []}
    for key, shape in outputs.items():
        found.setdefault(_fitting(usual, shape, source), []).append(key)
    return dict(sorted(found.items(), key=lambda group: group[0] != usual))


def _fitting(usual: Workload, *shapes: Shape) -> Workload:
    """`usual`, with the first fixed batch and the shortest fixed length of `shapes` in place of its own."""
    batches = [batch for batch, _ in shapes if batch]
    lengths = [length for _, length in shapes if length]
    return Workload(batches[0] if batches else usual.batch, min(lengths, default=usual.length))


def scaled(profile_ms: dict[str, float], total_ms: float) -> dict[str, float]:
    """Scale `profile_ms` to the sum `total_ms`, because profiled runs are slower. {a: 2, b: 4} and 3: {a: 1, b: 2}."""
    whole = sum(profile_ms.values())
    return {kind: ms * total_ms / whole if whole else 0.0 for kind, ms in profile_ms.items()}


def shape_of(path: Path) -> Shape:
    """The batch and the length that the file's inputs fix."""
    return declared_axes(read_skeleton(path)[0].graph)


def longest(source: Path, length: int) -> int:
    """`length`, or as many tokens as the model has positions for where those are fewer."""
    try:
        return fitting_length(canonical_form(Model.load(source)), length)
    except ModelError:  # no encoder; it runs all the same
        return length


def _timed(entries: Sequence[Entry], workload: Workload, asked: Mapping[str, Any]) -> list[Timed]:
    """The latency of every entry, its speed-up being against the first one, and its profile."""
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
    """The path of each output by its key; where the storage is no folder, of a copy with the files beside it."""
    with scratch() as temporary:
        found: dict[str, Path] = {}
        for key, output in outputs.items():
            model = f"objects/{key}/{output['model']}"
            here = storage.local(model)
            if here is None:
                for name in storage.names(posixpath.dirname(model)):
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    storage.fetch(name, temporary / name)
            found[key] = here or temporary / model
        yield found
