"""Choose how ranges follow from calibration, by what each choice does to the outputs on rows that were held back."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.ranges import METHODS
from onnxslim_bert.contract import Change, Context, Want
from onnxslim_bert.model import Model
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.trials import Trials


def choose_method(
    model: Model, action: QuantizeStatic, trials: Trials
) -> tuple[QuantizeStatic, Change, dict[str, float]]:
    """Quantize `model` with the best method: its pass, what that did, and the damage of each method.

    One sweep over the fitting rows serves all methods.
    """
    actions = [replace(action, method=method) for method in METHODS]
    wants: dict[Want, None] = dict.fromkeys(want for candidate in actions for want in candidate.wants(model))
    stats = trials.collect(model, wants, "calibrating quantize-static")
    measured = trials.once("range methods", model, lambda: _measure(model, actions, stats, trials), action=str(action))
    errors = {method: float(error) for method, error in measured.items()}
    best = min(actions, key=lambda candidate: errors[candidate.method])
    change = best.apply(model, Context(stats))
    return best, change, errors


def _measure(
    model: Model, actions: Sequence[QuantizeStatic], stats: Mapping[Want, Any], trials: Trials
) -> dict[str, Array]:
    """The damage of each action, by its method."""
    errors: dict[str, Array] = {}
    for done, candidate in enumerate(actions, start=1):
        quantized = model.clone()
        replace(candidate, embeddings=False).apply(quantized, Context(stats))  # tables are the same for all
        errors[candidate.method] = np.array(trials.damage(quantized))
        del quantized
        gc.collect()  # a graph's nodes and tensors refer to each other
        trials.progress("choosing the range method", done, len(actions))
    return errors
