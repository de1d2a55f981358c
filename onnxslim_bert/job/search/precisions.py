"""Which layers are worth keeping in float32, and what that costs."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.calibration.ranges import METHODS
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.costs import Costs, TimedRows, prunable_sites, time_models, write_int8
from onnxslim_bert.job.search.tables import before_int8, showing
from onnxslim_bert.model.layer_sets import layer_groups
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.trials import Trials

FLOATS = (1, 2)  # layers in float32; those that share their matrices count as one
SHORTEST = 0.1  # share of the mean time that a layer is taken to need at least, since short times are uncertain
STAGE = "measuring precisions"

Layers = tuple[int, ...]


def measure_precisions(
    model: Model, method: str, costs: Costs, workload: TimedRows, folder: Path, trials: Trials
) -> list[Alternative]:
    """int8 in every layer with its damage, and with some layers in float32 where that lowers it.

    Those are the layers whose own int8 does the most (squared) damage for the time that they take in int8: in float32
    they take more of it by about the same factor. model: canonicalized and fused. method: of the ranges.
    """
    action = next(QuantizeStatic(method=name) for name in METHODS if name == method)
    int8 = Int8Trials.of(before_int8(model, trials), action, trials)
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
    return found[:1] + _costing(model, found[1:], costs, workload, folder)


def rank(damages: Sequence[float], ms: Sequence[float]) -> list[int]:
    """Places in the order of squared damage for a millisecond, the most first."""
    least = SHORTEST * float(np.mean(ms)) or 1.0
    gains = [damage**2 / max(time, least) for damage, time in zip(damages, ms, strict=True)]
    return sorted(range(len(gains)), key=lambda i: -gains[i])


@dataclass(frozen=True)
class Int8Trials:
    """int8 forms of one model, and the damage of each; statistics are taken once for all."""

    model: Model
    action: QuantizeStatic
    stats: dict[Want, Any]
    trials: Trials

    @classmethod
    def of(cls, model: Model, action: QuantizeStatic, trials: Trials) -> "Int8Trials":
        return cls(model, action, showing(trials).collect(model, action.wants(model)), trials)

    def damage(self, floats: Sequence[int] = (), *, tables: bool = True) -> float:
        """With the layers `floats` in float32, and embedding `tables` in int8."""
        made = self.model.clone()
        replace(self.action, float_layers=tuple(floats), embeddings=tables).apply(made, Context(self.stats))
        damage = self.trials.damage(made)
        del made
        gc.collect()  # a graph's nodes and tensors refer to each other
        return damage


def _int8_ms(model: Model, layers: Layers, costs: Costs) -> float:
    """What the units of `layers` take together."""
    sites = [site for site in prunable_sites(model) if {*site.layers} <= {*layers}]
    return sum(costs.of(site).ms * site.units for site in sites)


def _costing(
    model: Model, found: Sequence[Alternative], costs: Costs, workload: TimedRows, folder: Path
) -> list[Alternative]:
    """`found` with what they save, which is less than nothing; timed together with int8 in every layer."""
    if not found:
        return []
    full = write_int8(model, [], 0.0, folder / "int8.onnx")
    files = [write_int8(model, [], 0.0, folder / f"float-{i}.onnx", tuple(one.floats)) for i, one in enumerate(found)]
    by_now, *times = time_models([full, *files], workload)
    costing = [
        replace(one, ms=costs.full_ms * (1 - ms / by_now), nbytes=float(model_bytes(full) - model_bytes(file)))
        for one, ms, file in zip(found, times, files, strict=True)
    ]
    for file in (full, *files):
        file.unlink()
    return costing
