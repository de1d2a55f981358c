"""Remove whole layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.halves import remedy
from onnxslim_bert.model.layer_sets import check_layers
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.spans import find_spans, remove_layer
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.options import check_each_once, write_option
from onnxslim_bert.rewriting.pruning.bridge import bridge_gap, can_bridge, fit_bridges
from onnxslim_bert.rewriting.trials import Trials


@dataclass(frozen=True)
class DropLayers(Pass):
    """Remove the encoder layers that the model's answers miss least.

    Layers go one at a time. Every layer left is tried: the model is run without it, and the layer without which the
    answers on held-back rows change least goes. Example: drop=2 of 6 layers tries 6 models, then 5.

    The layer before the gap makes up for the lost one: its `down` matrix is refitted by least squares, so that the
    residual stream behind it is what the lost layer left there, and the lost layer's last norm follows it. Where
    that cannot be done, a layer is tried without a refit: the first one, for instance, one behind a layer whose `down`
    is shared (ALBERT: less work, the same file), or a last one that computes one token (run `first-token` later).

    drop: how many layers go, at least 1.
    layers: which ones go, instead of measuring: 4/1 takes out layer 4 and then layer 1, counted from 0 in the encoder
        as it is given. Empty measures.
    refit: False takes layers out and changes no weight.

    Sajjad et al. 2023, https://arxiv.org/abs/2004.03844
    """

    name: ClassVar[str] = "drop-layers"
    drop: int = 1
    layers: tuple[int, ...] = ()
    refit: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drop < 1:
            raise PassError(f"drop-layers: drop={self.drop} removes nothing; needed a number from 1")
        if self.layers and self.drop != 1:
            given = f"drop-layers: layers={write_option(self.layers)}"
            raise PassError(f"{given} says how many layers go; leave drop={self.drop} out")
        check_each_once(self.name, "layers", self.layers)

    @property
    def measures(self) -> bool:
        return True

    def apply(self, model: Model, ctx: Context) -> Change:
        numbers, named = list(range(len(model.encoder.layers))), self.layers
        drop = len(named) or self.drop
        if drop >= len(numbers):
            raise PassError(f"drop-layers: {drop} layers less leave none: the encoder has {len(numbers)}")
        check_layers(f"drop-layers: layers={write_option(named)}", named, len(numbers))
        check_float32(model)
        total, removed, errors, rounds = len(numbers), list[int](), dict[int, float](), list[dict[int, float]]()
        for done in range(drop):
            gaps = [numbers.index(named[done])] if named else range(len(numbers))
            found = try_each(model, gaps, ctx.trials, refit=self.refit)
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
    """The model without the layer `gap`.

    damage: how far its answers are from the original's (`Trials.damage`). error: of the refit (`Bridge.error`), None
    without one.
    """

    gap: int
    model: Model
    damage: float
    error: float | None


def try_each(model: Model, gaps: Sequence[int], trials: Trials, *, refit: bool) -> list[Trial]:
    """A trial without each of the layers `gaps`; `model` stays as it is."""
    spans = find_spans(model)
    bridges = fit_bridges(model, spans, [gap for gap in gaps if refit and can_bridge(model, gap)], trials)
    found: list[Trial] = []
    for span in (spans[gap] for gap in gaps):
        candidate, bridge = model.clone(), bridges.get(span.index)
        if bridge is None:
            remove_layer(candidate, span)
        else:
            bridge_gap(candidate, spans[span.index - 1], span, bridge)
        error = None if bridge is None else bridge.error
        found.append(Trial(span.index, candidate, trials.damage(candidate), error))
        trials.progress("dropping layers", len(found), len(gaps))
    return found


def check_float32(model: Model) -> None:
    """Raise PassError when a matrix of a layer is not float32."""
    for layer in model.encoder.layers:
        for role, linear in layer.linears.items():
            if (dtype := model.array(linear.weight).dtype) != np.float32:
                raise PassError(f"layer {layer.index}: the {role} matrix is {dtype}; {remedy(model.graph, dtype)}")
