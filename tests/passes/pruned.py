"""The oracle of the passes that remove heads or neurons: the model with zeros where those units were read."""

import numpy as np

from onnxslim_bert.rewriting.pruning.sites import find_sites


def units(model, kind):
    """How many each site has."""
    return [site.units for site in find_sites(model, kind)]


def without_units(model, kind, kept):
    """A copy with zeros in the rows of `output` or `down` of other units than `kept`, site by site."""
    copy = model.clone()
    for site, left in zip(find_sites(model, kind), kept, strict=True):
        for linear in {linear.weight: linear for linear in site.readers(model)}.values():
            rows = np.isin(np.arange(linear.d_in) // site.unit, left).astype(np.float32)
            copy.replace(linear.weight, model.array(linear.weight) * (rows if linear.trans_b else rows[:, None]))
    return copy
