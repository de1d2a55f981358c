"""A "study" task: where the bytes of a source are, and which of its layers int8 hurts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError, ModelError, PassError
from onnxslim_bert.inspection.costs import measure_costs
from onnxslim_bert.inspection.sharing import find_shared
from onnxslim_bert.job.data import Data
from onnxslim_bert.job.rows import canonical_form, fitted, make_trials
from onnxslim_bert.job.search.sensitivity import LayerSensitivity, layer_sensitivities
from onnxslim_bert.model.narrow_weights import narrow_weights
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.progress import Progress
from onnxslim_bert.recipes.int8 import EXACT
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.zoo.engines.progress import teller
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.records import Study
from onnxslim_bert.zoo.source_files import sources_of, unchanged
from onnxslim_bert.zoo.store.array_cache import ArrayCache
from onnxslim_bert.zoo.store.storage import Storage


def study(task: Task, storage: Storage, folder: Path) -> Study:
    """Measure where the bytes of a source are, and how much int8 in each layer damages its outputs.

    Where layers cannot be measured, the study has the reason. `folder` is not used. Raises DataError where calibration
    rows cannot be read.
    """
    with unchanged(task.payload) as source:
        parts = parts_of(source)
        if not task.payload["sources"]["calibration"]:
            return Study(task.key, parts, reason="no calibration rows; name some with `calib`")
        try:
            layers = _layers(source, task.payload, ArrayCache(storage), teller(folder))
        except (ModelError, PassError) as error:
            return Study(task.key, parts, reason=str(error))
    return Study(task.key, parts, layers)


def parts_of(path: Path) -> dict[str, int]:
    """Bytes of the constants in the model at `path` by part of it; empty when it is not read as an encoder."""
    try:
        model = Model.load(path)
        stored = {name: constant.values for name, constant in model.constants().items()}
        narrow = narrow_weights(model.graph)
        Canonicalize().apply(model, Context())
        fused = model.clone()
        Fuse().apply(fused, Context())
        costs = measure_costs(model, fused, find_shared(model, stored), narrow, batch=1, seq=1)
    except (ModelError, PassError):
        return {}
    return {cost.part: cost.nbytes for cost in costs}


def _layers(
    source: Path, payload: dict[str, Any], cache: ArrayCache, progress: Progress
) -> tuple[LayerSensitivity, ...]:
    sources, how = sources_of(payload), Working(**payload["working"], cache=cache, progress=progress)
    calibration, _ = sources.load(how.seed)
    assert calibration is not None
    if calibration.fingerprint() != payload["data_sha256"]:
        raise DataError("the calibration rows on this machine are not those that the run was planned with")
    model = Model.load(source)
    canonical = canonical_form(model)
    working = fitted(replace(how, tokenizer=sources.tokenizer_for(source, calibration)), canonical)
    run_recipe(model, Recipe.parse(EXACT))  # as the main job begins: each finds the statistics that the other cached
    return layer_sensitivities(model, make_trials(canonical, Data(calibration), working, split=True))
