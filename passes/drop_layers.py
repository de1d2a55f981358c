"""Remove whole layers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim_bert.contract import Change, Context, Pass
from onnxslim_bert.errors import PassError
from onnxslim_bert.model import Model
from onnxslim_bert.pruning.bridge import bridge_gap, can_bridge, fit_bridges
from onnxslim_bert.pruning.layers import find_spans, remove_layer
from onnxslim_bert.trials import Trials


@dataclass(frozen=True)
class DropLayers(Pass):
    """Remove the encoder layers that the model's answers miss least.

    Each layer is taken out in turn, and the one without which the answers on held-back rows change least goes; then the
    next is looked for. The layer before a gap comes to stand for both: its `down` is refitted by least squares to give
    the stream that the lost layer left, whose last norm it takes over. Where that cannot be, a layer is tried without a
    refit: the first one, layers that share their matrices (ALBERT: less work, the same file), and a last one that
    computes one token, so run this before `first-token`.

    drop: how many layers go, at least 1.
    refit: False takes layers out and changes no weight.

    Sajjad et al. 2023, https://arxiv.org/abs/2004.03844
    """

    name: ClassVar[str] = "drop-layers"
    measures: ClassVar[bool] = True
    drop: int = 1
    refit: bool = True

    def __post_init__(self) -> None:
        if self.drop < 1:
            raise PassError(f"drop-layers: drop={self.drop} removes nothing; needed a number from 1")

    def apply(self, model: Model, ctx: Context) -> Change:
        numbers = list(range(len(model.encoder.layers)))
        if self.drop >= len(numbers):
            raise PassError(f"drop-layers: drop={self.drop} leaves no layer: the encoder has {len(numbers)}")
        check_float32(model)
        total, removed, errors, rounds = len(numbers), list[int](), dict[int, float](), list[dict[int, float]]()
        for _ in range(self.drop):
            found = try_each(model, ctx.trials, refit=self.refit)
            best = min(found, key=lambda trial: trial.damage)
            model.graph = best.model.graph
            model.changed()
            rounds.append({numbers[trial.gap]: round(trial.damage, 4) for trial in found})
            removed.append(numbers.pop(best.gap))
            if best.error is not None:
                errors[removed[-1]] = round(best.error, 4)
        which = ", ".join(map(str, removed))
        note = f"layer{'s' * (len(removed) > 1)} {which} of {total} removed; the answers change by {best.damage:.1%}"
        return Change(len(removed), note, {"removed": removed, "damages": rounds, "errors": errors})


@dataclass(frozen=True)
class Trial:
    """The model without one layer. damage: to its answers. error: of the refit (`Bridge.error`), if there was one."""

    gap: int
    model: Model
    damage: float
    error: float | None


def try_each(model: Model, trials: Trials, *, refit: bool) -> list[Trial]:
    """A trial of each layer; `model` stays as it is."""
    spans = find_spans(model)
    gaps = [span.index for span in spans if refit and can_bridge(model, span.index)]
    bridges = fit_bridges(model, spans, gaps, trials)
    found: list[Trial] = []
    for span in spans:
        candidate, bridge = model.clone(), bridges.get(span.index)
        if bridge is None:
            remove_layer(candidate, span)
        else:
            bridge_gap(candidate, spans[span.index - 1], span, bridge)
        error = None if bridge is None else bridge.error
        found.append(Trial(span.index, candidate, trials.damage(candidate), error))
        trials.progress("dropping layers", len(found), len(spans))
    return found


def check_float32(model: Model) -> None:
    """Raise PassError when a matrix of a layer is not float32."""
    for layer in model.encoder.layers:
        for role, linear in layer.linears.items():
            if (dtype := model.array(linear.weight).dtype) != np.float32:
                raise PassError(f"layer {layer.index}: the {role} matrix is {dtype}; start from the float32 model")
