"""Latency of several models in interleaved rounds of one process, and what each takes to load in one of its own.

A host's speed drifts, so every round runs every model on every provider once on the same rows, in shuffled order, and
they are compared within rounds only.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onnxslim_bert import __version__
from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.documents import plain
from onnxslim_bert.errors import DataError, ProviderError
from onnxslim_bert.graph.exits import leaves_early
from onnxslim_bert.machine import Host, host
from onnxslim_bert.proof.documents import SCHEMA
from onnxslim_bert.proof.footprint import Footprint, footprint
from onnxslim_bert.proof.intervals import Interval, paired_ratio, ratio_of_means
from onnxslim_bert.proof.workload import Feeds, Workload, same_feeds
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.places import CPU_ONLY, Places
from onnxslim_bert.targets.table import CPU
from onnxslim_bert.targets.target import Target


@dataclass(frozen=True)
class Latency:
    """One model's milliseconds a run on one workload.

    length: tokens of each row; None for real texts at their natural lengths.
    speedup: the first model's time over this one's in the same round, median over the rounds; of real texts, whose
    times differ, the ratio of the means. target: on what it ran. mean_ms: over the rounds of real texts; else None.
    """

    model: str
    batch: int
    length: int | None
    median_ms: float
    p90_ms: float
    p99_ms: float
    speedup: Interval
    target: str = CPU.name
    mean_ms: float | None = None

    @property
    def usual_ms(self) -> float:
        """The mean over real texts, whose times differ; else the median."""
        return self.median_ms if self.mean_ms is None else self.mean_ms


@dataclass(frozen=True)
class Bench:
    """Latencies with the settings they hold for; footprints by `entry_name`, empty when they were not asked for.

    data: the data set that real texts came from; None for random ids. placements: by `entry_name`, too.
    """

    latencies: tuple[Latency, ...]
    footprints: dict[str, Footprint]
    data: str | None
    rounds: int
    warmup: int
    threads: int
    spinning: bool
    seed: int
    host: Host
    placements: dict[str, Placement] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One JSON-ready document."""
        return {"schema": SCHEMA, "onnxslim_bert": __version__, **plain(self)}


Entry = tuple[Path, Target]  # a model and on what it runs


def entry_name(path: Path, target: Target) -> str:
    """The path, and on what it runs unless that is the CPU provider."""
    return str(path) if target is CPU else f"{path} on {target.name}"


@dataclass(frozen=True)
class Rounds:
    """How often models are run: `timed` times each, interleaved, after `warmup` runs. spinning: idle threads spin.

    seconds: after so many no more than FEWEST rounds are timed; slow models vary less from run to run.
    """

    timed: int = 50
    warmup: int = 5
    spinning: bool = False
    seconds: float = math.inf


FEWEST = 10  # rounds that are timed, however long they take
USUAL, ROUNDS = Working(), Rounds()


def bench(
    models: Sequence[Path | Entry],
    working: Working = USUAL,
    *,
    batch_sizes: Sequence[int] = (1,),
    lengths: Sequence[int] = (128,),
    dataset: Dataset | None = None,
    rounds: Rounds = ROUNDS,
    footprints: bool = True,
    places: Places = CPU_ONLY,
) -> Bench:
    """Time every model on every batch size and length, or on texts of `dataset` at their natural lengths.

    models: paths to run on every target of `places`, or entries; the others' speed-ups are over the first.
    Raises ModelError when a model cannot run on a workload, DataError when it cannot be fed, or lets texts leave early
    and gets random ids, ProviderError when it does not run on a target or the target is emulated.
    """
    entries = [entry for model in models for entry in _entries(model, places)]
    threads, seed, progress = working.threads, working.seed, working.progress
    if not entries or min(rounds.timed, threads, *batch_sizes, *lengths) < 1:
        raise DataError("needed at least one model, and rounds, threads, batch sizes and lengths of 1 or more")
    for path, target in entries:
        check_timeable(target)
        if dataset is None and leaves_early(path):
            raise DataError(f"{path} lets texts leave early, and random ids are none: time it on texts, with --data")
    placed = [places.open(target, path, threads=threads, spinning=rounds.spinning) for path, target in entries]
    sessions = [(path, each.session) for (path, _), each in zip(entries, placed, strict=True)]
    tokens: Sequence[int | None] = lengths if dataset is None else [None]
    workloads = [Workload(batch, length) for batch in batch_sizes for length in tokens]
    fed = [same_feeds(sessions, workload, dataset, working, rounds.timed) for workload in workloads]
    latencies: list[Latency] = []
    for done, (workload, feeds) in enumerate(zip(workloads, fed, strict=True), start=1):
        times = interleave(
            [session for _, session in sessions],
            feeds,
            rounds=rounds.timed,
            warmup=rounds.warmup,
            seed=seed,
            seconds=rounds.seconds,
        )
        latencies += [_latency(entry, workload, times, index, seed) for index, entry in enumerate(entries)]
        if progress:
            progress("timing", done, len(workloads))
    busy = host()
    taken: dict[str, Footprint] = {}
    for index, (path, target) in enumerate(entries if footprints else ()):
        largest = max((feed for feeds in fed for feed in feeds[index]), key=_values)
        setup = target.setup(places.options_of(target), threads)
        taken[entry_name(path, target)] = footprint(
            path, largest, threads=threads, spinning=rounds.spinning, setup=setup
        )
        if progress:
            progress("loading", index + 1, len(entries))
    name = dataset.name if dataset else None
    where = {entry_name(*entry): each.placement for entry, each in zip(entries, placed, strict=True)}
    return Bench(
        tuple(latencies), taken, name, rounds.timed, rounds.warmup, threads, rounds.spinning, seed, busy, where
    )


def _entries(model: Path | Entry, places: Places) -> list[Entry]:
    return [model] if isinstance(model, tuple) else [(model, target) for target in places.targets]


def check_timeable(target: Target) -> None:
    """Raise ProviderError for a target of which only an emulator executes here."""
    if target.emulated:
        raise ProviderError(
            f"{target.name} runs on an emulator here, whose times say nothing of a device: `onnxslim validate --ep "
            f"{target.name}` gives accuracy and partitions"
        )


class Runner(Protocol):
    """What is timed: an onnxruntime session, as far as this module needs it."""

    def run(self, output_names: None, input_feed: Feeds, /) -> object:
        """Compute all outputs."""


def interleave(
    sessions: Sequence[Runner],
    feeds: Sequence[Sequence[Feeds]],
    *,
    rounds: int,
    warmup: int,
    seed: int,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> Array:
    """Time every session once in each round, in shuffled order: milliseconds [rounds, sessions].

    feeds: for every session its batches; round 0 runs the first, round 1 the second, and so on, beginning again.
    warmup: rounds before these, which do not count. seconds: as in `Rounds`. clock: seconds.
    """
    rng = np.random.default_rng(seed)
    times = np.zeros((rounds, len(sessions)))
    for turn in range(-warmup, rounds):
        if turn >= FEWEST and times[:turn].sum() > 1000 * seconds:
            return times[:turn]
        for index in rng.permutation(len(sessions)):
            feed = feeds[index][turn % len(feeds[index])]
            start = clock()
            sessions[index].run(None, feed)
            if turn >= 0:
                times[turn, index] = 1000 * (clock() - start)
    return times


def _latency(entry: Entry, workload: Workload, times: Array, index: int, seed: int) -> Latency:
    (path, target), (batch, length) = entry, (workload.batch, workload.length)
    median, p90, p99 = (float(value) for value in np.percentile(times[:, index], [50, 90, 99]))
    alike = length is not None
    speedup = (paired_ratio if alike else ratio_of_means)(times[:, 0], times[:, index], seed=seed)
    mean = None if alike else float(times[:, index].mean())
    return Latency(str(path), batch, length, median, p90, p99, speedup, target.name, mean)


def _values(feed: Feeds) -> int:
    return sum(values.size for values in feed.values())
