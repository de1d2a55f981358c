"""A "make" task: one model written and proven, by the main job or by a recipe of passes."""

from pathlib import Path
from typing import Any

from onnxslim_bert.errors import DataError
from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.job.options import Options
from onnxslim_bert.job.quantize import Result as Quantized
from onnxslim_bert.job.quantize import quantize_files
from onnxslim_bert.job.slim import Slimmed, slim
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.documents import report_path
from onnxslim_bert.recipes.provenance import Provenance
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.zoo.engines.progress import teller
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.given import sources_of, unchanged
from onnxslim_bert.zoo.records import Result
from onnxslim_bert.zoo.store.array_cache import ArrayCache
from onnxslim_bert.zoo.store.storage import Storage
from onnxslim_bert.zoo.study import parts_of

WORST = 10  # rows of largest difference that are kept


def make(task: Task, storage: Storage, folder: Path) -> Result:
    """Write the artefact of `task` to `folder`. Raises SlimError for what the user can mend.

    Times are left out: they are those of the "time" task, and the same inputs give the same bytes.
    """
    payload = task.payload
    with unchanged(payload) as source:
        made = _write(task, source, folder, ArrayCache(storage))
    _check_data(made.provenance, made.comparison, payload["data_sha256"])
    return made


def _write(task: Task, source: Path, folder: Path, cache: ArrayCache) -> Result:
    payload = task.payload
    options, sources = options_of(payload), sources_of(payload)
    several = len(options.seq) > 1 and payload["recipe"] is None
    output = folder / ("model" if several else "model.onnx")
    kept: dict[str, Any] = {"cache": cache, "worst": WORST, "damages": True, "progress": teller(folder)}
    result: Quantized | Slimmed
    if payload["recipe"] is None:
        result = quantize_files(source, output, sources, options, timing=False, **kept)
        report_path(output).unlink()  # it tells of this host and its load
        methods, buckets = result.methods, result.buckets
    else:
        result = slim(source, output, Recipe.parse(payload["recipe"]), sources, options, **kept)
        methods, buckets = {}, {}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    model = output / buckets[max(buckets)] if buckets else output
    return Result(
        key=task.key,
        files={path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
        model=model.relative_to(folder).as_posix(),
        source_bytes=result.source_bytes,
        output_bytes=result.output_bytes,
        provenance=result.provenance,
        steps=result.steps,
        methods=methods,
        placement=result.placement,
        unproven=result.unproven,
        proven_on=result.proven_on,
        comparison=result.comparison,
        worst=result.worst,
        parts=parts_of(model),
    )


def options_of(payload: dict[str, Any]) -> Options:
    """The options of a task, from JSON."""
    values = dict(payload["options"])
    return Options(**{**values, "seq": tuple(values["seq"])})


def _check_data(seen: Provenance, comparison: Comparison | None, expected: dict[str, str]) -> None:
    """Raise DataError when this machine's rows are not those that the run was planned with."""
    found = {"calibration": seen.calibration_sha256, "corpus": seen.corpus_sha256}
    found["evaluation"] = comparison.fingerprint if comparison else ""
    for name, rows in found.items():
        if rows and rows != expected.get(name):
            raise DataError(f"the {name} rows on this machine are not those that the run was planned with")
