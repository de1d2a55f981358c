"""Instructions that models take on an emulated CPU of 64-bit ARM. They are counts: an instruction may take any time."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnxslim_bert.calibration.batches import SPECIAL_TOKENS
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import ProviderError
from onnxslim_bert.proof.workload import Workload, same_feeds
from onnxslim_bert.targets.arm64.counting import counted, last_run
from onnxslim_bert.targets.session import open_on
from onnxslim_bert.targets.setup import Setup
from onnxslim_bert.targets.table import EMULATED
from onnxslim_bert.targets.target import Target


@dataclass(frozen=True)
class Instructions:
    """What one model executes for one row of a workload, on one thread.

    per_row: instructions of a run of `batch` rows of `length` tokens, divided by `batch`; opening the session and what
    a first run prepares are not among them.
    relative: as many times those of the first model on the same target and workload.
    """

    model: str
    target: str
    batch: int
    length: int
    per_row: float
    relative: float


@dataclass(frozen=True)
class Counted:
    """What models execute, by target, then by workload, then as the models were given."""

    instructions: tuple[Instructions, ...]

    @property
    def fewest(self) -> list[Instructions]:
        """Of every target and workload the model that takes the fewest, the earlier one of two."""
        least: dict[tuple[str, int, int], Instructions] = {}
        for row in self.instructions:
            place = (row.target, row.batch, row.length)
            least[place] = min(least.get(place, row), row, key=lambda one: one.per_row)
        return list(least.values())


def count_instructions(
    models: Sequence[Path],
    targets: Sequence[Target],
    working: Working,
    *,
    batch_sizes: Sequence[int] = (1,),
    lengths: Sequence[int] = (128,),
) -> Counted:
    """Count what every model executes on every target and workload of random ids.

    Raises ProviderError for a target that no emulator of 64-bit ARM stands for, and where what counts is not set up;
    ModelError when a model cannot run on a workload.
    """
    for target in targets:
        if target.name not in EMULATED:
            raise ProviderError(
                f"{target.name} is not one of {', '.join(EMULATED)}, where instructions are counted instead of time: "
                "ask for those alone"
            )
    workloads = [Workload(batch, length) for batch in batch_sizes for length in lengths]
    found: list[Instructions] = []
    for target in targets:
        runs = [_runs(model, target, workloads, working) for model in models]
        for index, workload in enumerate(workloads):
            for model, counts in zip(models, runs, strict=True):
                per_row, relative = counts[index] / workload.batch, counts[index] / runs[0][index]
                found.append(
                    Instructions(str(model), target.name, workload.batch, workload.length or 0, per_row, relative)
                )
    return Counted(tuple(found))


def _runs(model: Path, target: Target, workloads: Sequence[Workload], working: Working) -> list[int]:
    """Instructions of one run of a model on each workload."""
    with tempfile.NamedTemporaryFile(mode="r") as log:
        session = open_on(replace(target, setup=_counting(target.setup, Path(log.name))), model).session
        counts = []
        for workload in workloads:
            for length in (SPECIAL_TOKENS, workload.length):  # each runs once; what the first prepares does not count
                same_feeds([(model, session)], replace(workload, length=length), None, working, rounds=1)
            counts.append(last_run(Path(log.name).read_text()))
            if working.progress:
                working.progress(f"counting {model.name} on {target.name}", len(counts), len(workloads))
    return counts


def _counting(setup: Callable[[Mapping[str, str], int], Setup], log: Path) -> Callable[[Mapping[str, str], int], Setup]:
    def counting(options: Mapping[str, str], threads: int) -> Setup:
        plain = setup(options, threads)
        return replace(plain, start=counted(plain.start, log))

    return counting
