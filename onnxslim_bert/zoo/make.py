"""A "make" task: one model written and proven."""

from pathlib import Path
from typing import Any

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError
from onnxslim_bert.graph.download import download_bytes
from onnxslim_bert.graph.files import file_sha256, model_files
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.report import Report
from onnxslim_bert.job.run import run
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.zoo.engines.progress import teller
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.records import Result
from onnxslim_bert.zoo.source_files import sources_of, unchanged
from onnxslim_bert.zoo.store.array_cache import ArrayCache
from onnxslim_bert.zoo.store.storage import Storage
from onnxslim_bert.zoo.study import parts_of

WORST = 10  # rows of largest difference that are kept


def make(task: Task, storage: Storage, folder: Path) -> Result:
    """Write the artefact of `task` to `folder`. Raises SlimError for what the user can mend.

    Times are left out: they are those of the "time" task, and the same inputs give the same bytes.
    """
    payload = task.payload
    deployment = deployment_of(payload)
    with unchanged(payload) as source:
        report = run(
            Job(
                source=source,
                output=folder / ("model" if len(deployment.seq) > 1 else "model.onnx"),
                recipe=Recipe.parse(payload["recipe"]),
                data=sources_of(payload),
                deployment=deployment,
                working=Working(**payload["working"], cache=ArrayCache(storage), progress=teller(folder)),
                report=False,  # it would tell of this host
                timing=False,
                worst=WORST,
                damages=True,
            )
        )
    _check_data(report, payload["data_sha256"])
    return _result(task.key, report, folder)


def deployment_of(payload: dict[str, Any]) -> Deployment:
    """Where what a task makes is to run, from JSON."""
    values = payload["deployment"]
    return Deployment(**{**values, "seq": tuple(values["seq"])})


def _result(key: str, report: Report, folder: Path) -> Result:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    buckets = report.buckets
    model = report.output / buckets[max(buckets)] if buckets else report.output
    return Result(
        key=key,
        files={path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
        model=model.relative_to(folder).as_posix(),
        source_bytes=report.source_bytes,
        output_bytes=report.output_bytes,
        provenance=report.provenance,
        steps=report.steps,
        methods=dict(report.methods),
        placement=report.placement,
        unproven=report.unproven,
        proven_on=report.proven_on,
        comparison=report.comparison,
        worst=report.worst,
        parts=parts_of(model),
        download_bytes=download_bytes(report.output.iterdir() if buckets else model_files(report.output)),
    )


def _check_data(report: Report, expected: dict[str, str]) -> None:
    """Raise DataError when this machine's rows are not those that the run was planned with."""
    seen = report.provenance
    found = {"calibration": seen.calibration_sha256, "corpus": seen.corpus_sha256}
    found["evaluation"] = report.comparison.fingerprint if report.comparison else ""
    for name, rows in found.items():
        if rows and rows != expected.get(name):
            raise DataError(f"the {name} rows on this machine are not those that the run was planned with")
