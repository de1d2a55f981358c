"""How many units each site keeps when the whole encoder keeps a share of them."""

from collections.abc import Sequence

import numpy as np

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context
from onnxslim_bert.rewriting.pruning.allocate import allocate
from onnxslim_bert.rewriting.pruning.prune import prune
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity, measure
from onnxslim_bert.rewriting.pruning.sites import UnitKind, find_sites

MEASURED, FEWEST = 8, 4  # widths of a site that are measured; those between them are interpolated
IN_ALL = 48  # widths that are measured of all sites together, in a round: what each costs grows with the layers, too
STEPS_IN_ALL = 20  # in which units go, of all sites together; a step measures and refits every one
LEAST_LEFT = 0.5  # of a layer's units, after one of several steps
ROUNDING = 1e-9


def prune_to_share(
    model: Model, kind: UnitKind, keep: float, grid: int, ctx: Context, *, even: bool, refit: bool, rounds: int
) -> Change:
    """Keep `keep` of all units of one kind, in multiples of `grid` a layer where layers are that wide.

    rounds: steps in which units go, the same share in each; fewer where sites are many, as every step measures all of
    them and takes less of each. What a layer can lose is measured anew before every step,
    on the model as it is by then, and holds while the other layers are near that: of several steps none takes more than
    half of a layer's units, or than a share of 1 - keep where that is more.
    """
    sites = find_sites(model, kind)
    total = sum(site.units for site in sites)
    budget = int(total * keep + ROUNDING)
    if budget == total:
        return Change(0, f"all {total} {kind} are kept: keep={keep}")
    if budget < (least := sum(ladder(site.units, grid)[0] for site in sites)):
        raise PassError(f"keep={keep} leaves {budget} of {total} {kind}; at least {least} are needed")
    steps = 1 if even else min(rounds, max(1, STEPS_IN_ALL // len(sites)))
    errors: list[list[float]] = []
    for step in range(1, steps + 1):
        now = int(total * keep ** (step / steps) + ROUNDING)
        sites = find_sites(model, kind)
        ladders = _ladders([site.units for site in sites], grid, keep, now, even=even, careful=steps > 1)
        most = min(MEASURED // min(steps, 2), max(FEWEST, IN_ALL // len(sites)))
        tried = [[] if even else measured_widths(widths, most) for widths in ladders]
        found = measure(model, sites, tried, ctx.trials)
        counts = [widths[0] for widths in ladders] if even else choose_widths(found, ladders, now)
        kept = [one.kept(count) for one, count in zip(found, counts, strict=True)]
        errors.append(prune(model, sites, kept, ctx.trials if refit else None))
    left = [site.units for site in find_sites(model, kind)]
    removed = total - sum(left)
    if not removed:
        return Change(0, f"all {total} {kind} are kept")
    details = {"kept": dict(zip(map(str, sites), left, strict=True)), "errors": errors}
    return Change(removed, f"{removed} of {total} {kind} removed; kept {', '.join(map(str, left))}", details)


def _ladders(
    units: Sequence[int], grid: int, keep: float, budget: int, *, even: bool, careful: bool
) -> list[list[int]]:
    """The numbers to choose from for sites of `units`; careful: near what there is, where that fits the budget."""
    if even:
        return [ladder(count, grid, count * keep)[:1] for count in units]
    near = [ladder(count, grid, count * min(keep, LEAST_LEFT)) for count in units]
    if careful and sum(steps[0] for steps in near) <= budget:
        return near
    return [ladder(count, grid) for count in units]


def choose_widths(found: Sequence[Sensitivity], ladders: Sequence[Sequence[int]], budget: int) -> list[int]:
    """The number of units for each site, at most `budget` in all, with the least damage; the larger one of equals."""
    falling = [list(reversed(steps)) for steps in ladders]
    damages = [one.squared(steps) for one, steps in zip(found, falling, strict=True)]
    picked = allocate([np.array(steps) for steps in falling], damages, budget)
    assert picked is not None  # the first step of every ladder fits
    return [steps[option] for steps, option in zip(falling, picked, strict=True)]


def ladder(units: int, grid: int, least: float = 0) -> list[int]:
    """The numbers of units that a site may keep, ascending: multiples of `grid`, and all.

    least: where the numbers start; at the next one below, when it is none of them.
    """
    step = grid if units >= 2 * grid else 1
    steps = [*range(step, units, step), units]
    return steps[max(0, sum(count <= least + ROUNDING for count in steps) - 1) :]


def measured_widths(steps: Sequence[int], most: int = MEASURED) -> list[int]:
    """Those of a ladder that are measured, at most so many: evenly spread, the ends among them."""
    places = np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int)
    return [steps[place] for place in places]
