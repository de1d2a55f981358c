"""Run a recipe over a model: one calibration sweep for each pass that wants statistics."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from onnxslim_bert.calibration.batches import Batches
from onnxslim_bert.calibration.collect import collect
from onnxslim_bert.contract import Context, Want
from onnxslim_bert.errors import DataError, PassError
from onnxslim_bert.model import Model
from onnxslim_bert.recipe import Recipe, Step

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


@dataclass(frozen=True)
class Done:
    """What one pass did. seconds: of CPU, calibration included."""

    step: str
    count: int
    note: str
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)


def run_recipe(
    model: Model,
    recipe: Recipe,
    batches: Batches | None = None,
    *,
    allow_noop: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> list[Done]:
    """Apply each step of `recipe` to `model`, in order; a record of each.

    Raises PassError when a step that is not optional changed nothing, unless `allow_noop`; DataError when a pass wants
    calibration and there are no `batches`.
    """
    known: dict[Want, Any] = {}
    return [
        run_step(model, step, batches, known, allow_noop=allow_noop, threads=threads, progress=progress)
        for step in recipe.steps
    ]


def run_step(
    model: Model,
    step: Step,
    batches: Batches | None,
    known: dict[Want, Any],
    *,
    allow_noop: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> Done:
    """Apply one step of a recipe.

    known: statistics of earlier sweeps that still hold; what this step collects joins them, what it makes untrue goes.
    """
    started = time.process_time()
    wants = list(step.action.wants(model))
    missing = [want for want in wants if want not in known]
    if missing and batches is None:
        raise DataError(f"{step.action.name} needs calibration data; name some with --calib")
    if missing and batches is not None:
        report = None if progress is None else partial(progress, f"calibrating {step.action.name}")
        known |= collect(model, missing, batches, report, threads=threads)
    change = step.action.apply(model, Context({want: known[want] for want in wants}))
    if not step.action.keeps_activations:
        known.clear()
    if not change and not step.optional and not allow_noop:
        raise PassError(f"{step.action.name} changed nothing: {change.note} (--allow-noop accepts that)")
    return Done(str(step), change.count, change.note, time.process_time() - started, change.details)
