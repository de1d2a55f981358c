"""Run a recipe on a model: collect the statistics that each pass wants, apply it, hold it to its promises."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import DataError, NoEncoderError, NothingChangedError, PassError, SlimError
from onnxslim_bert.graph.words import shown
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.recipes.promises import Promises
from onnxslim_bert.recipes.recipe import Recipe, Step
from onnxslim_bert.recipes.step_damage import StepDamage
from onnxslim_bert.rewriting.contract import Change, Context
from onnxslim_bert.rewriting.marks import EARLY_EXIT
from onnxslim_bert.rewriting.trials import Trials


@dataclass(frozen=True)
class Done:
    """What one pass did, for the report.

    step: the pass and its options, as recipe text. count, note, details: as in `Change`. seconds: of CPU, calibration
    included. nodes, nbytes: how many nodes the model has after the pass, and how many bytes its constants take. damage:
    how far the model's outputs are from the source's after the pass (`StepDamage`); None where it was not measured.
    """

    step: str
    count: int
    note: str
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)
    nodes: int = 0
    nbytes: int = 0
    damage: float | None = None


def run_recipe(model: Model, recipe: Recipe, trials: Trials | None = None, *, allow_noop: bool = False) -> list[Done]:
    """Apply each step of `recipe` to `model`, in order; return a record of each.

    allow_noop: accept steps that change nothing, optional or not.

    Raises PassError when a step that is not optional changed nothing, unless `allow_noop`, and when a pass broke a
    promise of its class or met a matrix that it cannot solve; DataError when a pass wants calibration and there are no
    `trials`; ModelError when ONNX Runtime refuses the model that was given.
    """
    known: dict[Want, Any] = {}
    held = Promises(threads=trials.threads if trials is not None else 1)
    done = [
        run_step(model, step, trials, known, recipe.steps[i:], allow_noop=allow_noop, promises=held)
        for i, step in enumerate(recipe.steps, start=1)
    ]
    held.settle()
    return done


def run_step(
    model: Model,
    step: Step,
    trials: Trials | None,
    known: dict[Want, Any],
    ahead: Sequence[Step] = (),
    *,
    allow_noop: bool = False,
    step_damage: StepDamage | None = None,
    promises: Promises | None = None,
) -> Done:
    """Apply one step of a recipe, hold it to its promises, and return a record of it.

    known: statistics collected before that still hold. What this step collects is added; if the pass changes
    activations, all are taken out.
    ahead: the steps behind this one. Where it keeps activations, what they want is collected together with its own.
    promises: one object for several steps, so that their answers are found once; call its `settle` after the last of
    them. None makes one for this step alone.

    An optional step that needs an encoder does nothing where none is found. Raises what `run_recipe` raises.
    """
    held = promises or Promises(threads=trials.threads if trials is not None else 1)
    started = time.process_time()
    if EARLY_EXIT.is_in(model.graph) and not step.action.takes_exits:
        raise PassError(f"{step.action.name}: texts leave this model early; run all other steps before `early-exit`")
    try:
        wants = list(step.action.wants(model))
    except NoEncoderError as error:
        if not step.optional:
            raise _advised(error, step, model) from error
        return record(str(step), Change(0, str(error)), started, model, step_damage)
    missing = [want for want in wants if want not in known]
    if trials is None and (missing or step.action.measures):
        raise DataError(f"{step.action.name} needs calibration data; name some with --calib")
    if trials is not None and missing:
        soon = [want for want in _wanted_ahead(model, [step, *ahead]) if want not in known]
        known |= trials.collect(model, list(dict.fromkeys([*missing, *soon])), f"calibrating {step.action.name}")
    before = held.before(step.action, model)
    try:
        change = step.action.apply(model, Context({want: known[want] for want in wants}, trials))
    except SlimError as error:
        if isinstance(error, NoEncoderError):
            held.check(step.action, before, model)  # the pass itself may have broken it
        if not (step.optional and isinstance(error, NoEncoderError)):
            held.settle()  # a fault of an earlier pass may be the reason
            if isinstance(error, NoEncoderError):
                raise _advised(error, step, model) from error
            raise
        change = Change(0, str(error))
    except np.linalg.LinAlgError as error:
        held.settle()
        raise PassError(unsolvable(step.action.name, model, error)) from error
    if not step.action.keeps_activations:
        known.clear()
    if not change and not step.optional and not allow_noop:
        raise NothingChangedError(step.action.name, change.note)
    held.check(step.action, before, model)
    if promises is None:
        held.settle()
    return record(change.ran or str(step), change, started, model, step_damage)


def _advised(error: NoEncoderError, step: Step, model: Model) -> NoEncoderError:
    """The error, with what to do where `model` is as exporters write it."""
    as_written = any(node.op == "Constant" for node in model.graph.nodes)
    return NoEncoderError(f"{error}; run `canonicalize` before {step.action.name}" if as_written else str(error))


def _wanted_ahead(model: Model, steps: Sequence[Step]) -> Iterator[Want]:
    """What the steps behind the first want, as far as only such lie between that keep activations."""
    for before, step in pairwise(steps):
        if not before.action.keeps_activations:
            return
        try:
            yield from step.action.wants(model)
        except SlimError:  # its own turn says so
            return


def unsolvable(name: str, model: Model, error: Exception) -> str:
    """Why pass `name` met a matrix that it cannot solve or factorize: constants that are no numbers, or none that are.

    Example: "low-rank: SVD did not converge; constant 'w' holds 3 values that are not finite".
    """
    for key, constant in model.constants().items():
        values = constant.values
        # a mask may hold -inf
        if values.dtype.kind == "f" and (wrong := np.count_nonzero(~np.isfinite(values) & (values != -np.inf))):
            return f"{name}: {error}; constant {shown(key)} holds {wrong:,} values that are not finite, mend the export"
    return (
        f"{name}: {error}; the weights or the activations of the calibration rows give a degenerate matrix, "
        f"leave {name} out or calibrate on more rows"
    )


def record(step: str, change: Change, started: float, model: Model, step_damage: StepDamage | None = None) -> Done:
    """The record of `step`, which has just changed `model`. started: the process's CPU seconds before it."""
    seconds = time.process_time() - started
    nbytes = sum(constant.values.nbytes for constant in model.constants().values())
    damage = step_damage.of(model) if step_damage is not None else None
    return Done(step, change.count, change.note, seconds, change.details, len(model.graph.nodes), nbytes, damage)
