"""Measure how far the model's answers move when one layer keeps fewer heads or neurons; nothing is removed yet."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Gram, Want
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.pruning.least_squares import channels, eliminate, moments, with_ridge
from onnxslim_bert.rewriting.pruning.sites import Site, constants, downwards
from onnxslim_bert.rewriting.pruning.surgery import matrix
from onnxslim_bert.rewriting.resumed_rows import ResumedRows
from onnxslim_bert.rewriting.trials import Trials

RIDGE = 1e-3  # for choosing units; the final refit (`prune`) chooses a ridge of its own


@dataclass(frozen=True)
class Sensitivity:
    """What narrowing one site (the heads or the neurons of a layer) does.

    order: the numbers of its units, the first to go in front. damage: by how many units are kept, how far the model's
    answers on held-back rows move (`Trials.damage`) when this site alone is narrowed and refitted. Example: {6: 0.08,
    9: 0.03, 12: 0.0} for a layer of 12 heads.
    """

    site: Site
    order: Array
    damage: dict[int, float]

    def kept(self, count: int) -> Array:
        """The numbers of the `count` units to keep, ascending, [count]."""
        return np.sort(self.order[len(self.order) - count :])

    def squared(self, counts: Sequence[int]) -> Array:
        """The squared damage of keeping each of `counts` units, [counts], interpolated between those measured.

        Squared, because the squares of independent errors add up. More units never count as more damage than fewer.
        """
        known = sorted(self.damage)
        squares = np.maximum.accumulate(np.square([self.damage[count] for count in known])[::-1])[::-1]
        return np.interp(counts, known, squares)


def measure(model: Model, sites: Sequence[Site], counts: Sequence[Sequence[int]], trials: Trials) -> list[Sensitivity]:
    """The sensitivity of each site.

    counts: for each site, the numbers of kept units to measure; an empty list finds the order of its units only.
    """
    content = {"sites": list(map(asdict, sites)), "counts": list(map(list, counts))}
    held = trials.once("sensitivities", model, lambda: _measure(model, sites, counts, trials), **content)
    return [
        Sensitivity(site, held[f"{i}.order"], dict(zip(widths, held[f"{i}.damage"].tolist(), strict=True)))
        for i, (site, widths) in enumerate(zip(sites, counts, strict=True))
    ]


def _measure(model: Model, sites: Sequence[Site], counts: Sequence[Sequence[int]], trials: Trials) -> dict[str, Array]:
    """The order and the damages of the site at place i, as the arrays "i.order" and "i.damage"."""
    resumed, found = ResumedRows(model.clone(), trials, consumed=True), dict[str, Array]()
    order, whole = downwards(sites), 0.0
    for done, i in enumerate(order, start=1):
        part, here = resumed.part(constants(model, [sites[j] for j in order[done - 1 :]]))
        wants = gram_wants(model, sites[i])
        stats = here.collect(part, wants, "collecting second moments")
        found[f"{i}.order"], variants = _variants(model, sites[i], counts[i], [stats[want] for want in wants])
        if done == 1:
            variants[sites[i].units] = {}  # for every site it is the model as it is
        damages = dict(zip(variants, here.damages(part, list(variants.values())), strict=True))
        whole = damages.get(sites[i].units, whole)
        found[f"{i}.damage"] = np.array([damages.get(count, whole) for count in counts[i]])
        trials.progress("measuring sensitivity", done, len(order))
    return found


def gram_wants(model: Model, site: Site) -> list[Want]:
    """The second moments of the inputs of each distinct layer that reads a site."""
    return list(dict.fromkeys(Want(reader.source, "gram") for reader in site.readers(model)))


def _variants(
    model: Model, site: Site, counts: Sequence[int], grams: Sequence[Gram]
) -> tuple[Array, dict[int, dict[str, Array]]]:
    """The order in which units go; and for each count below all, the constants that narrow the site.

    Those constants are the refitted matrices of what reads the site, with zeros for the units that go, and its biases,
    by name.
    """
    readers = site.readers(model)
    covariance, mean = moments(grams)
    weight = matrix(model, readers[0])
    narrower = [count for count in counts if count < site.units]
    order, fitted = eliminate(with_ridge(covariance, RIDGE), weight, site.unit, narrower)
    variants: dict[int, dict[str, Array]] = {count: {} for count in narrower}
    for count, values in variants.items():
        narrow = np.zeros_like(weight)
        narrow[channels(np.sort(order[len(order) - count :]), site.unit)] = fitted.pop(count)
        shift = mean @ (weight - narrow)
        for linear in readers:
            values[linear.weight] = np.ascontiguousarray(narrow.T) if linear.trans_b else narrow
            if linear.bias is not None:
                values[linear.bias] = (model.array(linear.bias) + shift).astype(np.float32)
    return order, variants
