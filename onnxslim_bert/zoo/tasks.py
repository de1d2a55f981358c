"""The tasks of a plan, each addressed by the content of everything that decides its result."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from onnxslim_bert.sources import Sources
from onnxslim_bert.targets.int8_kernels import u8s8_saturates
from onnxslim_bert.versions import versions
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.given import Given, Hash, given
from onnxslim_bert.zoo.planning.plan import Plan, Planned
from onnxslim_bert.zoo.store.opened import opened

PLACES = ("source", "tokenizer", "calib")  # where things are: they decide nothing, their content does


class Tasks:
    """Makes tasks; what several of them share is read once."""

    def __init__(self, sha256_of: Hash) -> None:
        self.sha256_of = sha256_of
        self._models: dict[tuple[str, Path | None], Given] = {}
        self._data: dict[tuple[Sources, int], dict[str, str]] = {}

    def make(self, job: Planned) -> Task:
        """The task that writes what `job` asks for. Raises DataError for data that cannot be read."""
        options = job.options
        if job.passes is None and (options.target, options.mode) == ("cpu", "static") and options.reduce_range is None:
            options = replace(options, reduce_range=u8s8_saturates())
        sources, source = job.sources, self.source(job)
        payload = {
            "source": _absolute(job.source),
            "source_name": Path(job.source).name,
            "source_sha256": source.sha256,
            "recipe": None if job.passes is None else str(job.passes),
            "options": asdict(options),
            "sources": {**asdict(sources), "tokenizer": None},
            "tokenizer": str(sources.tokenizer.resolve()) if sources.tokenizer else None,
            "tokenizer_sha256": source.tokenizer_sha256,
            "data_sha256": self.data(sources, options.seed),
            "versions": versions(job.target),
        }
        return _addressed("make", job.name, payload, job.target, job.memory, job.timeout)

    def source(self, job: Planned) -> Given:
        """The model that `job` starts from, and its tokenizer."""
        tokenizer = job.sources.tokenizer
        known = (job.source, tokenizer)
        if known not in self._models:
            with opened(job.source) as path:
                self._models[known] = given(path, tokenizer, self.sha256_of)
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

    def time(self, plan: Plan, jobs: Sequence[tuple[Planned, Task, str]]) -> Task:
        """The task that times one source with everything made of it for one target.

        jobs: of one model and one target; each with its task and the file of its artefact to open.
        """
        first = jobs[0][0]
        source = self.source(first)
        payload = {
            "source": _absolute(first.source),
            "source_sha256": source.sha256,
            "target": first.target,
            "outputs": {task.key: {"model": file} for _, task, file in jobs},
            "rounds": plan.rounds,
            "batch": plan.batch,
            "length": plan.length,
            "threads": first.options.threads,
            "seed": first.options.seed,
            "max_length": first.options.max_length,
            "versions": versions(first.target),
        }
        name = f"{first.model} {first.target}"
        return _addressed("time", name, payload, first.target, None, _longest(job for job, _, _ in jobs))

    def study(self, jobs: Sequence[Planned]) -> Task:
        """The task that studies one source: `jobs` are all of one model."""
        first = next((job for job in jobs if job.sources.calibration), jobs[0])
        sources, source = first.sources, self.source(first)
        fingerprints = self.data(sources, first.options.seed)
        payload = {
            "source": _absolute(first.source),
            "source_sha256": source.sha256,
            "calib": sources.calibration,
            "data_sha256": fingerprints.get("calibration", ""),
            "rows": sources.rows,
            "tokenizer": str(sources.tokenizer.resolve()) if sources.tokenizer else None,
            "tokenizer_sha256": source.tokenizer_sha256,
            "text_columns": list(sources.text_columns),
            "max_length": first.options.max_length,
            "threads": first.options.threads,
            "seed": first.options.seed,
            "versions": versions(),
        }
        return _addressed("study", first.model, payload, "cpu", first.memory, _longest(jobs))


def _addressed(
    kind: str, name: str, payload: dict[str, Any], target: str, memory: int | None, timeout: float | None
) -> Task:
    """A task with its key: the same for the same content wherever it lies, under whatever name people gave the job."""
    content = {key: value for key, value in payload.items() if key not in PLACES}
    if "sources" in content:
        content["sources"] = {key: _base_name(value) for key, value in content["sources"].items()}
    key = hashlib.sha256(json.dumps([kind, target, content], sort_keys=True).encode()).hexdigest()
    return Task(key, kind, name, payload, target, memory, timeout)


def _base_name(value: Any) -> Any:
    """A data file is known by its rows; of where it lies only its name gets into a model."""
    return Path(value).name if isinstance(value, str) else value


def _absolute(source: str) -> str:
    return source if "://" in source else str(Path(source).resolve())


def _longest(jobs: Iterable[Planned]) -> float | None:
    """The most generous time limit of several jobs; None when one has none."""
    limits = [job.timeout for job in jobs]
    given = [limit for limit in limits if limit is not None]
    return max(given) if len(given) == len(limits) else None
