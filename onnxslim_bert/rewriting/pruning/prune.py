"""Remove heads and neurons that were chosen, from the first layer to the last, and refit what reads the others."""

from collections.abc import Sequence

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Gram
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.pruning.least_squares import channels, moments, refit, squared_error, with_ridge
from onnxslim_bert.rewriting.pruning.sensitivity import gram_wants
from onnxslim_bert.rewriting.pruning.sites import Site, constants, downwards
from onnxslim_bert.rewriting.pruning.surgery import keep_units, matrix, set_reader
from onnxslim_bert.rewriting.resumed_rows import ResumedRows
from onnxslim_bert.rewriting.trials import Trials

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)


def prune(model: Model, sites: Sequence[Site], kept: Sequence[Array], trials: Trials | None) -> list[float]:
    """Cut each site (the heads or the neurons of one layer) down to its units `kept`; return the refit's errors.

    kept: for each of `sites`, the numbers of the units that stay, ascending. Example: [0, 2] keeps two heads of three.

    With `trials`, sites are taken from the first layer to the last. The matrix that reads a site (`output` or `down`)
    is fitted again by ridge least squares: on what it reads now, behind layers that are pruned already, it is to give
    what the whole site made it give (Kwon et al. 2022, https://arxiv.org/abs/2204.09656). Of four ridges, and of not
    fitting at all, the one with the least error on held-back rows is taken. The errors are one for each site cut, in
    that order: |new - old| / |old| of what the matrix gives there. Without `trials` rows are cut and nothing is
    fitted; there are no errors then.
    """
    errors: list[float] = []
    order = downwards(sites)
    resumed = ResumedRows(model, trials) if trials else None
    for done, i in enumerate(order, start=1):
        site, units = sites[i], kept[i]
        if len(units) == site.units:
            continue
        if resumed is None:
            keep_units(model, site, units)
            continue
        part, here = resumed.part(constants(model, [sites[j] for j in order[done - 1 :]]))
        wants = gram_wants(model, site)
        seen, unseen = (
            here.collect(part, wants, "collecting second moments", held_back=other) for other in (False, True)
        )
        grams = [seen[want] for want in wants]
        weight = matrix(model, site.readers(model)[0]).astype(np.float64)
        fitted, error = best_refit(grams, [unseen[want] for want in wants], weight, channels(units, site.unit))
        shift = moments(grams)[1] @ (weight - fitted)
        keep_units(model, site, units)
        set_reader(model, site, fitted[channels(units, site.unit)], shift)
        errors.append(error)
        here.progress("pruning", done, len(order))
    return errors


def best_refit(grams: Sequence[Gram], unseen: Sequence[Gram], weight: Array, kept: Array) -> tuple[Array, float]:
    """The matrix that reads the inputs `kept` alone and is best on `unseen` rows, and its error there.

    weight [n, d_out] -> [n, d_out], zero outside `kept`. Candidates are fits to the rows of `grams`, one for each of
    RIDGES, and `weight` with the other rows zeroed. error: |new - old| / |old| of the results, their means aside.
    """
    covariance, judge = moments(grams)[0], moments(unseen)[0]
    alone = np.zeros_like(weight)
    alone[kept] = weight[kept]
    candidates = [refit(with_ridge(covariance, ridge), weight, kept) for ridge in RIDGES]
    scored = [(squared_error(judge, candidate - weight), i) for i, candidate in enumerate([*candidates, alone])]
    least, chosen = min(scored)
    size = squared_error(judge, weight)
    return [*candidates, alone][chosen], float(np.sqrt(max(least, 0.0) / max(size, 1e-30)))
