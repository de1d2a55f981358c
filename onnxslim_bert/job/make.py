"""Rewrite a model for a target: the passes of the main job, with the data that they need."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxslim_bert.calibration.cache import Cache
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.job.data import Data
from onnxslim_bert.job.options import Options
from onnxslim_bert.job.prepare import (
    check_labels,
    check_vocabulary,
    fit_to,
    fixed_shape,
    make_trials,
    make_watch,
    shape_of,
)
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import renew_shapes
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.progress import Progress
from onnxslim_bert.recipes.lowering import STANDARD, lowering
from onnxslim_bert.recipes.provenance import Provenance, stamp
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import Done, run_recipe, run_step
from onnxslim_bert.rewriting.int8.saturation import find_saturation
from onnxslim_bert.rewriting.trials import Trials
from onnxslim_bert.targets.int8_kernels import u8s8_saturates

SMOOTHING = ("split-outliers", "smooth")


@dataclass(frozen=True)
class Saturating:
    """What int8 products lose on CPUs that add them in 16 bits (AVX2 without VNNI).

    layers: in which some sums of pairs can leave 16 bits. loss: the largest, |saturated - exact| / |exact| of the
    product of the layer at node `worst`, on calibration rows.
    """

    layers: int
    worst: str
    loss: float


@dataclass(frozen=True)
class Made:
    """What was done to a model, with which options in the end (`max_length` as it was used).

    shape: the batch and the length that it fixes, None where they are open.
    methods: the error of each range method on held-back rows, empty when the user named one.
    saturating: of int8 for the CPU; None for all else.
    """

    options: Options
    shape: tuple[int | None, int | None]
    provenance: Provenance
    steps: tuple[Done, ...]
    methods: dict[str, float] = field(default_factory=dict)
    saturating: Saturating | None = None


def make(
    source: Path,
    data: Data,
    options: Options,
    progress: Progress | None = None,
    *,
    cache: Cache | None = None,
    damages: bool = False,
) -> tuple[Model, Made]:
    """What the passes for `options` make of the file at `source`.

    cache: of what several recipes measure alike. damages: measure the damage after each step. Raises SlimError for what
    the user can mend.
    """
    model = Model.load(source)
    given = model.clone() if damages else None
    exact, rest = recipes_for(options)
    # a model for NNAPI is no longer read as an encoder once it is in its form
    steps, methods = run_recipe(model, Recipe(exact.steps[:1])), dict[str, float]()
    check_vocabulary(model, data.tokenizer)
    options = fit_to(model, options)
    watch = None
    if given is not None:
        watch = make_watch(given, model, data.calibration, data.evaluation, data.tokenizer, options, shape_of(exact))
        del given
        steps = [replace(step, damage=watch.damage(model)) for step in steps] if watch is not None else steps
    steps += run_recipe(model, Recipe(exact.steps[1:]), watch=watch)
    options = replace(options, max_length=min(options.max_length, fixed_shape(model)[1] or options.max_length))
    if data.evaluation is not None:
        check_labels(source, data.evaluation, data.tokenizer, options, cache)
    trials, known, saturating = None, dict[Want, Any](), None
    if data.calibration is not None:
        splits = options.method is None
        trials = make_trials(
            model, data.calibration, data.tokenizer, options, split=splits, cache=cache, progress=progress
        )
    for step in rest.steps:
        steps.append(run_step(model, step, trials, known, watch=watch))
        methods |= steps[-1].details.get("methods", {})
        if isinstance(step.action, QuantizeStatic) and trials is not None and options.target == "cpu":
            saturating = saturation_of(model, trials.unshared())
    if options.target != "cpu":
        renew_shapes(model)
    provenance = Provenance.of(source, ",".join(done.step for done in steps), data.calibration)
    stamp(model, provenance)
    return model, Made(options, fixed_shape(model), provenance, tuple(steps), methods, saturating)


def saturation_of(model: Model, trials: Trials) -> Saturating:
    """The layer that loses most where products are added in 16 bits."""
    found = [layer for layer in find_saturation(model, trials) if layer.possible]
    worst = max(found, key=lambda layer: layer.loss, default=None)
    return Saturating(len(found), worst.node if worst else "", worst.loss if worst else 0.0)


def recipes_for(options: Options) -> tuple[Recipe, Recipe]:
    """The passes of the main job: exact ones, which may find nothing to do, and then the others."""
    if options.target != "cpu":
        exact, rest = lowering(options.target, options.mode, *options.seq[:1])
        steps = [step for step in rest.steps if options.smooth or step.action.name not in SMOOTHING]
        return exact, Recipe(tuple(replace(step, action=_chosen(step.action, options)) for step in steps))
    if options.mode == "weight-only":
        return _parsed(STANDARD), _parsed(["quantize-weights"])
    contrib = options.format == "contrib" and options.mode != "fp16"
    exact_steps = ["canonicalize?", "fuse?" if contrib else "fuse{style=standard}?", "first-token?"]
    form = f"format={options.format}"
    narrow = u8s8_saturates() if options.reduce_range is None else options.reduce_range
    reduce = ",reduce-range=true" * narrow
    last = {
        "static": f"quantize-static{{method={options.method or 'best'},{form}{reduce}}}",
        "dynamic": f"quantize-dynamic{{{form}}}",
        "fp16": "float16",
    }[options.mode or "static"]
    smooth = [f"{name}?" for name in SMOOTHING] * (options.smooth and options.mode == "static")
    # without padding before anything is quantized: ranges found at run time are then those of real tokens
    return _parsed(exact_steps), _parsed([*smooth, *["unpad?"] * options.batch, last, *["skip-mask?"] * contrib])


def _chosen(action: Any, options: Options) -> Any:
    """A pass of a lowering with what the user chose of it."""
    return replace(action, method=options.method or "best") if isinstance(action, QuantizeStatic) else action


def _parsed(steps: Sequence[str]) -> Recipe:
    return Recipe.parse(",".join(steps))
