"""What each width of each site costs the model's own answers, measured before anything is removed."""

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

RIDGE = 1e-3  # with which units are chosen; what reads them is fitted with a ridge of its own later


@dataclass(frozen=True)
class Sensitivity:
    """One site, measured.

    order: its units, the one to go first in front. damage: what keeping some numbers of units does to the model's
    answers on held-back rows when this site alone is narrowed and refitted (`Trials.damage`).
    """

    site: Site
    order: Array
    damage: dict[int, float]

    def kept(self, count: int) -> Array:
        """The `count` units to keep, ascending."""
        return np.sort(self.order[len(self.order) - count :])

    def squared(self, counts: Sequence[int]) -> Array:
        """The squared damage of each of `counts` units, interpolated; squares of independent errors add up."""
        known = sorted(self.damage)
        squares = np.maximum.accumulate(np.square([self.damage[count] for count in known])[::-1])[::-1]
        return np.interp(counts, known, squares)


def measure(model: Model, sites: Sequence[Site], counts: Sequence[Sequence[int]], trials: Trials) -> list[Sensitivity]:
    """The sensitivity of every site to each of its `counts`."""
    content = {"sites": list(map(asdict, sites)), "counts": list(map(list, counts))}
    held = trials.once("sensitivities", model, lambda: _measure(model, sites, counts, trials), **content)
    return [
        Sensitivity(site, held[f"{i}.order"], dict(zip(widths, held[f"{i}.damage"].tolist(), strict=True)))
        for i, (site, widths) in enumerate(zip(sites, counts, strict=True))
    ]


def _measure(model: Model, sites: Sequence[Site], counts: Sequence[Sequence[int]], trials: Trials) -> dict[str, Array]:
    """The order of units of every site, and its damage at each of its `counts`, by its place."""
    has_whole = any(site.units in widths for site, widths in zip(sites, counts, strict=True))
    whole = trials.damage(model) if has_whole else 0.0
    resumed, found = ResumedRows(model, trials), dict[str, Array]()
    order = downwards(sites)
    for done, i in enumerate(order, start=1):
        part, here = resumed.part(constants(model, [sites[j] for j in order[done - 1 :]]))
        wants = gram_wants(model, sites[i])
        stats = here.collect(part, wants, "collecting second moments")
        found[f"{i}.order"], variants = _variants(model, sites[i], counts[i], [stats[want] for want in wants])
        damages = dict(zip(variants, here.damages(part, list(variants.values())), strict=True))
        found[f"{i}.damage"] = np.array([damages.get(count, whole) for count in counts[i]])
        trials.progress("measuring sensitivity", done, len(order))
    return found


def gram_wants(model: Model, site: Site) -> list[Want]:
    """The second moments of the inputs of each distinct layer that reads a site."""
    return list(dict.fromkeys(Want(reader.source, "gram") for reader in site.readers(model)))


def _variants(
    model: Model, site: Site, counts: Sequence[int], grams: Sequence[Gram]
) -> tuple[Array, dict[int, dict[str, Array]]]:
    """The order in which units go; and for each narrower count the constants of the site's readers, zero for them."""
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
