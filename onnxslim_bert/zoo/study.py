"""A "study" task: where the bytes of a source are, and which of its layers int8 hurts."""

from pathlib import Path
from typing import Any

from onnxslim_bert.errors import DataError, ModelError, PassError
from onnxslim_bert.inspection.costs import measure_costs
from onnxslim_bert.inspection.sharing import find_shared
from onnxslim_bert.job.options import Options
from onnxslim_bert.job.prepare import check_vocabulary, fit_to, make_trials
from onnxslim_bert.job.search.sensitivity import Sensitivity, layer_sensitivities
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.progress import Progress
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.zoo.engines.progress import teller
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.given import sources_of, unchanged
from onnxslim_bert.zoo.records import Study
from onnxslim_bert.zoo.store.array_cache import ArrayCache
from onnxslim_bert.zoo.store.storage import Storage

EXACT = "canonicalize?,fuse?,first-token?"  # as the main job begins: its statistics serve here, and these there


def study(task: Task, storage: Storage, folder: Path) -> Study:
    """What there is to know of a source besides what its recipes tell. It leaves no files in `folder`.

    Layers that cannot be measured are a reason in the study. Raises DataError where calibration rows cannot be read.
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
        Canonicalize().apply(model, Context())
        fused = model.clone()
        Fuse().apply(fused, Context())
        costs = measure_costs(model, fused, find_shared(model, stored), batch=1, seq=1)
    except (ModelError, PassError):
        return {}
    return {cost.part: cost.nbytes for cost in costs}


def _layers(source: Path, payload: dict[str, Any], cache: ArrayCache, progress: Progress) -> tuple[Sensitivity, ...]:
    sources = sources_of(payload)
    options = Options(max_length=payload["max_length"], threads=payload["threads"], seed=payload["seed"])
    calibration, _ = sources.load(options.seed)
    assert calibration is not None
    if calibration.fingerprint() != payload["data_sha256"]:
        raise DataError("the calibration rows on this machine are not those that the run was planned with")
    reader = sources.tokenizer_for(source, calibration)
    model = Model.load(source)
    run_recipe(model, Recipe.parse(EXACT))
    check_vocabulary(model, reader)
    options = fit_to(model, options)
    trials = make_trials(model, calibration, reader, options, split=True, cache=cache, progress=progress)
    return layer_sensitivities(model, trials)
