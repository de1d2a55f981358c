"""The tasks of a plan. A task's key is a hash of everything that decides its result: equal keys, equal results."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.measured import Asked
from onnxslim_bert.machine import version_of, versions
from onnxslim_bert.targets.table import TARGETS
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.planning.plan import PlannedJob, ZooPlan
from onnxslim_bert.zoo.source_files import Hash, SourceFiles, source_files
from onnxslim_bert.zoo.store.opened import opened
from onnxslim_bert.zoo.store.storage import absolute

PLACES = ("source", "tokenizer", "sources")  # parts of a payload that say where files are; keys leave these out


class Tasks:
    """Makes the tasks of a plan. Files and data sets that several tasks read are hashed once.

    sha256_of: hashes a file. executes: whether models can be run on a target, as `Engine.executes`.
    """

    def __init__(self, sha256_of: Hash, executes: Callable[[str], bool] = lambda target: True) -> None:
        self.sha256_of, self.executes = sha256_of, cache(executes)
        self._models: dict[tuple[str, Path | None], SourceFiles] = {}
        self._data: dict[tuple[Sources, int], dict[str, str]] = {}

    def make(self, job: PlannedJob) -> Task:
        """The task that writes what `job` asks for. Raises DataError for data that cannot be read."""
        sources, source, working = job.sources, self.source(job), job.working
        payload = {
            **_places(job),
            "source_name": Path(job.source).name,
            "source_sha256": source.sha256,
            "recipe": str(job.passes),
            "deployment": asdict(job.deployment),
            "working": _working(working),
            "asked": asdict(Asked.of(sources, evaluated=False)),
            "tokenizer_sha256": source.tokenizer_sha256,
            "data_sha256": self.data(sources, working.seed),
            "executes": self.executes(job.target),
            "versions": _versions(job.target, source),
        }
        return _addressed("make", job.name, payload, job.target, job.memory, job.timeout)

    def source(self, job: PlannedJob) -> SourceFiles:
        """The model that `job` starts from, and its tokenizer."""
        tokenizer = job.sources.tokenizer
        known = (job.source, tokenizer)
        if known not in self._models:
            with opened(job.source) as path:
                self._models[known] = source_files(path, tokenizer, self.sha256_of)
        return self._models[known]

    def data(self, sources: Sources, seed: int) -> dict[str, str]:
        """The fingerprints of the rows that are calibrated and evaluated on, and of the corpus."""
        known = (replace(sources, tokenizer=None), seed)
        if known not in self._data:
            calibration, evaluation = sources.load(seed)
            corpus = sources.load_corpus(evaluation)
            sets = {"calibration": calibration, "evaluation": evaluation, "corpus": corpus}
            self._data[known] = {name: rows.fingerprint() for name, rows in sets.items() if rows is not None}
        return self._data[known]

    def time(self, plan: ZooPlan, jobs: Sequence[tuple[PlannedJob, Task, str]]) -> Task:
        """The task that times one source with everything made of it for one target.

        jobs: of one model and one target; each with its task and the file of its artefact to open.
        """
        first = jobs[0][0]
        source = self.source(first)
        payload = {
            "source": absolute(first.source),
            "source_sha256": source.sha256,
            "target": first.target,
            "executes": self.executes(first.target),
            "outputs": {task.key: {"model": file} for _, task, file in jobs},
            "rounds": plan.rounds,
            "batch": plan.batch,
            "length": plan.length,
            "threads": first.working.threads,
            "seed": first.working.seed,
            "max_length": min(job.working.max_length for job, _, _ in jobs),
            "versions": versions(TARGETS[first.target].extra),
        }
        name = f"{first.model} {first.target}"
        return _addressed("time", name, payload, first.target, None, _longest(job for job, _, _ in jobs))

    def study(self, jobs: Sequence[PlannedJob]) -> Task:
        """The task that studies one source: `jobs` are all of one model."""
        first = next((job for job in jobs if job.sources.calibration), jobs[0])
        sources, source = first.sources, self.source(first)
        fingerprints = self.data(sources, first.working.seed)
        payload = {
            **_places(first),
            "source_sha256": source.sha256,
            "data_sha256": fingerprints.get("calibration", ""),
            "tokenizer_sha256": source.tokenizer_sha256,
            "working": _working(first.working),
            "versions": _versions("cpu", source),
        }
        return _addressed("study", first.model, payload, "cpu", first.memory, _longest(jobs))


def _addressed(
    kind: str, name: str, payload: dict[str, Any], target: str, memory: int | None, timeout: float | None
) -> Task:
    """A task with its key, the hash of its kind, target and payload.

    Paths and names are not part of the key: after a folder is moved or a job renamed, its results are still found.
    """
    content = {key: value for key, value in payload.items() if key not in PLACES}
    key = hashlib.sha256(json.dumps([kind, target, content], sort_keys=True).encode()).hexdigest()
    return Task(key, kind, name, payload, target, memory, timeout)


def _working(working: Working) -> dict[str, int]:
    """The fields of `working` that a result depends on."""
    return {"max_length": working.max_length, "threads": working.threads, "seed": working.seed}


def _versions(target: str, source: SourceFiles) -> dict[str, str]:
    """Versions of the software that a task for `target` and `source` uses."""
    return versions(TARGETS[target].extra) | ({"transformers": version_of("transformers")} if source.legacy else {})


def _places(job: PlannedJob) -> dict[str, Any]:
    """Where a job's model, tokenizer and data are. Links are not followed: a model's data lies beside the link."""
    tokenizer = job.sources.tokenizer
    return {
        "source": absolute(job.source),
        "tokenizer": tokenizer and absolute(str(tokenizer)),
        "sources": {**asdict(job.sources), "tokenizer": None},
    }


def _longest(jobs: Iterable[PlannedJob]) -> float | None:
    """The longest of the jobs' time limits in seconds; None when a job has none."""
    limits = [job.timeout for job in jobs]
    given = [limit for limit in limits if limit is not None]
    return max(given) if len(given) == len(limits) else None
