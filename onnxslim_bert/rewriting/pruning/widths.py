"""Prune the encoder to a share of its heads or neurons: find how many each layer keeps, and cut it to that."""

from collections.abc import Sequence

import numpy as np

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context
from onnxslim_bert.rewriting.pruning.allocate import allocate
from onnxslim_bert.rewriting.pruning.prune import prune
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity, measure
from onnxslim_bert.rewriting.pruning.sites import UnitKind, find_sites

MEASURED, FEWEST = 8, 4  # widths of a site measured at most and at least; between them damages are interpolated
IN_ALL = 48  # widths measured in a step, all sites together: with more layers each measurement takes longer, too
STEPS_IN_ALL = 20  # steps times sites at most, because a step measures and refits every site
LEAST_LEFT = 0.5  # the share of a layer's units that one of several steps leaves at least
ROUNDING = 1e-9


def prune_to_share(
    model: Model, kind: UnitKind, keep: float, grid: int, ctx: Context, *, even: bool, refit: bool, rounds: int
) -> Change:
    """Keep the share `keep` of all heads or all neurons of the encoder.

    grid: layers of at least twice so many units keep a multiple of it, or all. even: the same share in every layer,
    without measuring. refit: fit again what reads the units that stay.

    rounds: steps in which units go, at most, the same share in each; more than one only while steps times sites
    stay within STEPS_IN_ALL.
    Example: keep=0.5 of 72 heads in 2 steps leaves 50 and then 36. Before every step it is measured, on the model as it
    is by then, what each layer can lose. That holds only while the other layers stay near what they were, so one of
    several steps leaves each layer half of its units, or the share `keep` where that is less, if the total allows it.

    Raises PassError when `keep` leaves fewer units than the least that every layer needs.
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
    """For each site the numbers of units that it may keep; `units` are what they have now.

    even: one number each. careful: none below LEAST_LEFT or `keep` of what there is, unless the budget asks for less.
    """
    if even:
        return [ladder(count, grid, count * keep)[:1] for count in units]
    near = [ladder(count, grid, count * min(keep, LEAST_LEFT)) for count in units]
    if careful and sum(steps[0] for steps in near) <= budget:
        return near
    return [ladder(count, grid) for count in units]


def choose_widths(found: Sequence[Sensitivity], ladders: Sequence[Sequence[int]], budget: int) -> list[int]:
    """How many units each site keeps: at most `budget` in all, with the least damage; more, where damages are equal.

    Raises PassError where no damage to choose by is a number, as the answers without some units are not finite.
    """
    falling = [list(reversed(steps)) for steps in ladders]
    damages = [one.squared(steps) for one, steps in zip(found, falling, strict=True)]
    picked = allocate([np.array(steps) for steps in falling], damages, budget)
    if picked is None:  # the first step of every ladder fits, so it is the damages
        raise PassError(f"the answers are not finite with fewer {found[0].site.kind}; check the model's weights")
    return [steps[option] for steps, option in zip(falling, picked, strict=True)]


def ladder(units: int, grid: int, least: float = 0) -> list[int]:
    """The numbers of units that a site may keep, ascending: multiples of `grid`, and all `units`.

    least: the first number is the last one that is not above it. Sites of fewer than twice `grid` units may keep any
    number. Example: 100 units, grid 32 and least 70 give [64, 96, 100].
    """
    step = grid if units >= 2 * grid else 1
    steps = [*range(step, units, step), units]
    return steps[max(0, sum(count <= least + ROUNDING for count in steps) - 1) :]


def measured_widths(steps: Sequence[int], most: int = MEASURED) -> list[int]:
    """At most `most` of the numbers `steps`, evenly spread, the first and the last among them."""
    places = np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int)
    return [steps[place] for place in places]
