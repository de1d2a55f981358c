"""Other precisions than int8: which layers to leave in float32."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.calibration.ranges import METHODS
from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.costs import (
    Costs,
    TimingConditions,
    prunable_sites,
    size_of,
    time_models,
    write_quantized,
)
from onnxslim_bert.job.search.forms import finish_to_time
from onnxslim_bert.job.search.tables import before_int8, showing
from onnxslim_bert.model.layer_sets import layer_groups
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.trials import Trials
from onnxslim_bert.targets.int8_kernels import u8s8_saturates

FLOATS = (1, 2)  # layers left in float32; layers that share their matrices count as one
SHORTEST = 0.1  # share of the mean time that a layer is taken to need at least, since short times are uncertain
STAGE = "measuring precisions"

Layers = tuple[int, ...]


def measure_precisions(
    model: Model, method: str, costs: Costs, conditions: TimingConditions, folder: Path, trials: Trials
) -> list[Alternative]:
    """Measure int8 in every layer, and with one or two layers in float32 where that does less damage.

    Returns int8 in every layer first, then those with float32 layers, each of less damage than the one before it.
    Which layers: those that do the most squared damage, when they alone are int8, for each millisecond that they take
    in int8 (`rank`). Time in int8 stands for the time that float32 adds, which is about the same multiple everywhere.

    model: canonicalized and fused. method: of the int8 ranges. A target other than the CPU has one precision.
    """
    if conditions.where.is_lowered:
        made = model.clone()
        finish_to_time(made, conditions.where)
        return [Alternative(damage=trials.damage(made))]
    int8 = Int8Trials.of(before_int8(model, trials), static(method), trials)
    groups = layer_groups(model)
    every = sorted(layer for group in groups for layer in group)
    alone: list[float] = []
    for group in groups if len(groups) > 1 else []:
        alone.append(int8.damage([layer for layer in every if layer not in group], tables=False))
        trials.progress(STAGE, len(alone), len(groups))
    order = rank(alone, [_int8_ms(model, group, costs) for group in groups]) if alone else []
    found = [Alternative(damage=int8.damage())]
    for count in FLOATS:
        if count >= len(groups):
            break  # nothing would be left to quantize
        floats = tuple(sorted(layer for i in order[:count] for layer in groups[i]))
        damage = int8.damage(floats)
        if damage < found[-1].damage:
            found.append(Alternative(damage=damage, floats=floats))
    return found[:1] + _costing(model, found[1:], costs, conditions, folder)


def rank(damages: Sequence[float], ms: Sequence[float]) -> list[int]:
    """Indices in the order of squared damage for each millisecond, the most first.

    A time below SHORTEST of the mean counts as that. Example: damages 0.1, 0.2 and 0.2 in 1, 1 and 2 ms: [1, 2, 0].
    """
    least = SHORTEST * float(np.mean(ms)) or 1.0
    gains = [damage**2 / max(time, least) for damage, time in zip(damages, ms, strict=True)]
    return sorted(range(len(gains)), key=lambda i: -gains[i])


def static(method: str) -> QuantizeStatic:
    """The int8 pass with the range method of this name, for this machine."""
    return next(QuantizeStatic(method=name, reduce_range=u8s8_saturates()) for name in METHODS if name == method)


@dataclass(frozen=True)
class Int8Trials:
    """Makes int8 forms of one model and measures the damage of each, from statistics that are collected once.

    model: as it is before it is quantized. action: the int8 pass. stats: what the pass wants to know of `model`.
    """

    model: Model
    action: QuantizeStatic
    stats: dict[Want, Any]
    trials: Trials

    @classmethod
    def of(cls, model: Model, action: QuantizeStatic, trials: Trials) -> "Int8Trials":
        return cls(model, action, showing(trials).collect(model, action.wants(model)), trials)

    def made(self, floats: Sequence[int] = (), *, tables: bool = True) -> Model:
        """The int8 form with the layers `floats` in float32; tables: whether embeddings are int8, too."""
        made = self.model.clone()
        replace(self.action, float_layers=tuple(floats), embeddings=tables).apply(made, Context(self.stats))
        return made

    def damage(self, floats: Sequence[int] = (), *, tables: bool = True) -> float:
        """The damage of the int8 form with the layers `floats` in float32; tables: whether embeddings are int8, too."""
        made = self.made(floats, tables=tables)
        damage = self.trials.damage(made)
        del made
        gc.collect()  # a graph's nodes and tensors refer to each other
        return damage


def _int8_ms(model: Model, layers: Layers, costs: Costs) -> float:
    """Milliseconds that the heads and neurons of `layers` take together, in int8."""
    sites = [site for site in prunable_sites(model) if {*site.layers} <= {*layers}]
    return sum(costs.of(site).ms * site.units for site in sites)


def _costing(
    model: Model, found: Sequence[Alternative], costs: Costs, conditions: TimingConditions, folder: Path
) -> list[Alternative]:
    """`found` with the milliseconds and bytes saved against int8 in every layer: below 0, as they cost more."""
    if not found:
        return []
    full = write_quantized(model, [], 0.0, folder / "int8.onnx", conditions.where)
    files = [
        write_quantized(model, [], 0.0, folder / f"float-{i}.onnx", conditions.where, tuple(one.floats))
        for i, one in enumerate(found)
    ]
    by_now, *times = time_models([full, *files], conditions)
    whole = size_of(full, conditions)
    costing = [
        replace(one, ms=costs.full_ms * (1 - ms / by_now), nbytes=float(whole - size_of(file, conditions)))
        for one, ms, file in zip(found, times, files, strict=True)
    ]
    for file in (full, *files):
        file.unlink()
    return costing
