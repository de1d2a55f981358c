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
    progress: Progress | None = None,
) -> list[Done]:
    """Apply each step of `recipe` to `model`, in order; a record of each.

    Raises PassError when a step that is not optional changed nothing, unless `allow_noop`; DataError when a pass wants
    calibration and there are no `batches`.
    """
    return [run_step(model, step, batches, allow_noop=allow_noop, progress=progress) for step in recipe.steps]


def run_step(
    model: Model,
    step: Step,
    batches: Batches | None = None,
    *,
    allow_noop: bool = False,
    progress: Progress | None = None,
) -> Done:
    """Apply one step of a recipe."""
    started = time.process_time()
    wants = list(step.action.wants(model))
    if wants and batches is None:
        raise DataError(f"{step.action.name} needs calibration data; name some with --calib")
    stats: dict[Want, Any] = {}
    if wants and batches is not None:
        stage = f"calibrating {step.action.name}"
        stats = collect(model, wants, batches, None if progress is None else partial(progress, stage))
    change = step.action.apply(model, Context(stats))
    if not change and not step.optional and not allow_noop:
        raise PassError(f"{step.action.name} changed nothing: {change.note} (--allow-noop accepts that)")
    return Done(str(step), change.count, change.note, time.process_time() - started, change.details)
