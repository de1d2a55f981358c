"""How many units each site keeps when the whole encoder keeps a share of them."""

from collections.abc import Sequence

import numpy as np

from onnxslim_bert.contract import Change
from onnxslim_bert.errors import PassError
from onnxslim_bert.model import Model
from onnxslim_bert.pruning.allocate import allocate
from onnxslim_bert.pruning.prune import prune
from onnxslim_bert.pruning.sensitivity import Sensitivity, measure
from onnxslim_bert.pruning.sites import Kind, Site, find_sites
from onnxslim_bert.trials import Trials

MEASURED = 8  # widths of a site that are measured; those between them are interpolated


def check_keep(name: str, keep: float) -> None:
    """Raise PassError unless `keep` is a share that leaves something."""
    if not 0 < keep <= 1:
        raise PassError(f"{name}: keep={keep} is not in (0, 1]; 0.75 keeps three quarters")


def prune_to_share(
    model: Model, kind: Kind, keep: float, grid: int, trials: Trials, *, even: bool, refit: bool
) -> Change:
    """Keep `keep` of all units of one kind, in multiples of `grid` a layer where layers are that wide."""
    sites = find_sites(model, kind)
    total = sum(site.units for site in sites)
    budget = int(total * keep + 1e-9)
    ladders = [ladder(site.units, grid) for site in sites]
    if budget < (least := sum(steps[0] for steps in ladders)):
        raise PassError(f"keep={keep} leaves {budget} of {total} {kind}; at least {least} are needed")
    if even:
        tried = [
            [max(n for n in steps if n <= max(site.units * keep, steps[0]))] for site, steps in _zip(sites, ladders)
        ]
    else:
        tried = [measured_widths(steps) for steps in ladders]
    found = measure(model, sites, tried, trials)
    counts = [steps[0] for steps in tried] if even else choose_widths(found, ladders, budget)
    removed = total - sum(counts)
    if not removed:
        return Change(0, f"all {total} {kind} are kept")
    kept = [one.kept(count) for one, count in zip(found, counts, strict=True)]
    errors = prune(model, sites, kept, trials if refit else None)
    details = {"kept": dict(zip([str(site) for site in sites], counts, strict=True)), "errors": errors}
    return Change(removed, f"{removed} of {total} {kind} removed; kept {_listed(counts)}", details)


def choose_widths(found: Sequence[Sensitivity], ladders: Sequence[Sequence[int]], budget: int) -> list[int]:
    """The number of units for each site, at most `budget` in all, with the least damage."""
    costs = [np.array(steps) for steps in ladders]
    damages = [one.squared(steps) for one, steps in zip(found, ladders, strict=True)]
    picked = allocate(costs, damages, budget)
    assert picked is not None  # the first step of every ladder fits
    return [steps[option] for steps, option in zip(ladders, picked, strict=True)]


def ladder(units: int, grid: int) -> list[int]:
    """The numbers of units that a site may keep, ascending: multiples of `grid`, and all."""
    step = grid if units >= 2 * grid else 1
    return [*range(step, units, step), units]


def measured_widths(steps: Sequence[int]) -> list[int]:
    """Those of a ladder that are measured: evenly spread, the ends among them."""
    places = np.linspace(0, len(steps) - 1, min(MEASURED, len(steps))).round().astype(int)
    return [steps[place] for place in places]


def _zip(sites: Sequence[Site], ladders: Sequence[Sequence[int]]) -> list[tuple[Site, Sequence[int]]]:
    return list(zip(sites, ladders, strict=True))


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts))
