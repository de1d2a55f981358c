"""Choose how ranges follow from calibration, by what each choice does to the outputs on rows that were held back."""

import gc
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batches
from onnxslim_bert.calibration.collect import collect, real_rows
from onnxslim_bert.calibration.ranges import METHODS
from onnxslim_bert.contract import Change, Context, Want
from onnxslim_bert.model import Model
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.runtime import model_session, run

Progress = Callable[[str, int, int], None]


def choose_method(
    model: Model,
    action: QuantizeStatic,
    fitting: Batches,
    held_back: Batches,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[QuantizeStatic, Change, dict[str, float]]:
    """Quantize `model` with the best method: its pass, what that did, and the error of each method.

    One sweep over `fitting` serves all methods; the error is that of the outputs on `held_back`, relative to the float
    model's (Euclidean norm).
    """
    actions = [replace(action, method=method) for method in METHODS]
    wants: dict[Want, None] = dict.fromkeys(want for candidate in actions for want in candidate.wants(model))
    report = None if progress is None else lambda done, total: progress("calibrating quantize-static", done, total)
    stats = collect(model, wants, fitting, report, threads=threads)
    exact = outputs(model, held_back, threads)
    errors: dict[str, float] = {}
    for done, candidate in enumerate(actions, start=1):
        quantized = model.clone()
        replace(candidate, embeddings=False).apply(quantized, Context(stats))  # tables are the same for all
        errors[candidate.method] = relative_error(exact, outputs(quantized, held_back, threads))
        del quantized
        gc.collect()  # a graph's nodes and tensors refer to each other
        if progress is not None:
            progress("choosing the range method", done, len(actions))
    best = min(actions, key=lambda candidate: errors[candidate.method])
    change = best.apply(model, Context(stats))
    return best, change, errors


def outputs(model: Model, batches: Batches, threads: int = 1) -> list[Array]:
    """Every float output on every batch, padding left out."""
    session = model_session(model, threads=threads)
    found: list[Array] = []
    for batch in batches:
        values = run(session, batch.feeds)
        found.extend(real_rows(value, batch.mask) for value in values if value.dtype.kind == "f" and value.ndim > 1)
    return found


def relative_error(exact: list[Array], actual: list[Array]) -> float:
    """The norm of the difference over the norm of `exact`."""
    difference = sum(float(np.square(a - e).sum(dtype=np.float64)) for a, e in zip(actual, exact, strict=True))
    return float(np.sqrt(difference / max(sum(float(np.square(e).sum(dtype=np.float64)) for e in exact), 1e-30)))
