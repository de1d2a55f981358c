"""Compare range methods (minmax, entropy, ...) by how far each moves the outputs on held-back rows, hard ones too."""

import gc
from collections.abc import Callable, Iterable, Mapping

from onnxslim_bert.arrays import Array
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.trials import Trials


def method_errors(
    model: Model, choices: Mapping[str, str], made: Callable[[str], Model], trials: Trials
) -> dict[str, Array]:
    """The errors of rows (`Trials.row_errors`) with each of `choices`, under the same names.

    choices: steps that quantize `model` and differ in their range method alone. made: the model after the step of that
    name.
    """
    return trials.once("errors of range methods", model, lambda: _measure(choices, made, trials), choices=dict(choices))


def _measure(choices: Iterable[str], made: Callable[[str], Model], trials: Trials) -> dict[str, Array]:
    errors: dict[str, Array] = {}
    names = list(choices)
    for done, name in enumerate(names, start=1):
        errors[name] = trials.row_errors(made(name))
        gc.collect()  # a graph's nodes and tensors refer to each other
        trials.progress("choosing the range method", done, len(names))
    return errors
