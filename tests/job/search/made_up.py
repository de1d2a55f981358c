"""Small tables as a search would have measured them."""

import numpy as np

from onnxslim_bert.job.search.alternatives import Measurements
from onnxslim_bert.job.search.costs import Costs, Saving, site_key
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity
from onnxslim_bert.rewriting.pruning.sites import Site

HEADS, NEURONS = 4, 96  # ladders 1, 2, 3, 4 and 32, 64, 96


def options(count: int = 2, seed: int = 0, **alternatives) -> Measurements:
    """Random tables of an encoder with `count` layers of HEADS heads and NEURONS neurons."""
    rng = np.random.default_rng(seed)
    heads = [Site("heads", (i,), HEADS, 8) for i in range(count)]
    neurons = [Site("neurons", (i,), NEURONS, 1) for i in range(count)]
    found = [Sensitivity(s, np.arange(s.units), _damage(rng, [1, 2, 3, 4])) for s in heads]
    found += [Sensitivity(s, np.arange(s.units), _damage(rng, [32, 64, 96])) for s in neurons]
    savings = {
        site_key(one.site): Saving(ms=float(rng.uniform(0.5, 1.5) / n), nbytes=float(rng.uniform(500, 1500) / n))
        for one, n in zip(found, [HEADS] * count + [NEURONS] * count, strict=True)
    }
    return Measurements(found, Costs(source_ms=40.0, full_ms=10.0, full_bytes=10_000, savings=savings), **alternatives)


def _damage(rng: np.random.Generator, counts: list[int]) -> dict[int, float]:
    """Less with every unit that stays, and none when all do."""
    damages = np.append(np.sort(rng.uniform(0.05, 1.0, len(counts) - 1))[::-1], 0.0)
    return dict(zip(counts, damages.tolist(), strict=True))
