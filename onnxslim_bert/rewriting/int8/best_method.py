"""Compare range methods (minmax, entropy, ...) by how far each moves the outputs on held-back rows, hard ones too."""

import gc
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Context, Pass
from onnxslim_bert.rewriting.trials import Trials


def method_damages(
    model: Model, choices: Mapping[str, Pass], trials: Trials, stats: Mapping[Want, Any]
) -> dict[str, float]:
    """How far each of `choices` moves the outputs of `model`, as `Trials.error_a_row` says, under the same names.

    choices: passes that quantize and differ in their range method alone. stats: what all of them want of the fitting
    rows. `model` stays as it is.
    """
    content = {name: str(action) for name, action in choices.items()}
    measured = trials.once("range methods", model, lambda: _measure(model, choices, stats, trials), choices=content)
    return {name: float(error) for name, error in measured.items()}


def _measure(model: Model, choices: Mapping[str, Pass], stats: Mapping[Want, Any], trials: Trials) -> dict[str, Array]:
    errors: dict[str, Array] = {}
    for done, (name, action) in enumerate(choices.items(), start=1):
        quantized = model.clone()
        action.apply(quantized, Context(stats))
        errors[name] = np.array(trials.error_a_row(quantized))
        del quantized
        gc.collect()  # a graph's nodes and tensors refer to each other
        trials.progress("choosing the range method", done, len(choices))
    return errors
