"""The details of one job in the report: the numbers of its tables, with bars where two are compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.recipes.run import Done
from onnxslim_bert.targets.placement import Group
from onnxslim_bert.wording import duration, plural
from onnxslim_bert.zoo.page.wording import DASH, brief, fixed, megabytes, signed, with_ends
from onnxslim_bert.zoo.records import Row, Source


@dataclass(frozen=True)
class Bar:
    """A quantity before and after. wide: both as percent of the largest of the table."""

    name: str
    before: str
    after: str
    change: str
    wide: tuple[float, float]


@dataclass(frozen=True)
class StepRow:
    """What one pass did, in words. wide: its damage as percent of the largest."""

    step: str
    count: int
    note: str
    seconds: str
    nodes: str
    nbytes: str
    damage: str
    wide: float


def details(row: Row, source: Source) -> dict[str, Any]:
    """What job.html shows; a part that is empty is left out there."""
    result, study, timing = row.result, source.study, source.timings.get(row.target)
    before, after = timing.source if timing else None, row.timed
    compared = result.comparison if result else None
    return {
        "row": row,
        "facts": dict(facts(row)),
        "steps": steps(result.steps) if result else [],
        "parts": bars(study.parts, result.parts, 1e6) if study and result else [],
        "profile": bars(before.profile, after.profile, 1) if before and after else [],
        "scores": compared.scores if compared else (),
        "closeness": dict(closeness(compared)) if compared else {},
        "worst": result.worst if result else (),
        "placement": result.placement if result else None,
        "groups": left_groups(row),
        "methods": {name: brief(error) for name, error in result.methods.items()} if result else {},
    }


def facts(row: Row) -> Iterator[tuple[str, str]]:
    """How the job ran."""
    yield "recipe", row.text
    if row.result:
        made = row.result.provenance
        if made.recipe != row.text:
            yield "as it ran", made.recipe
        if made.calibration:
            yield "calibrated on", made.calibration
        yield "judged on", f"{row.result.proven_on}{f' ({row.result.unproven})' if row.result.unproven else ''}"
    if row.path:
        yield "file", row.path
    if row.attempts:
        took = f"{duration(row.seconds)}, {row.cpu_seconds:.0f} s of CPU, {row.peak_bytes / 1e6:,.0f} MB of memory"
        times = "" if row.attempts == 1 else f", {row.attempts} attempts"
        yield (
            "took",
            f"{took}{times}{f', {row.worker}' if row.worker else ''}{', kept from an earlier run' * row.cached}",
        )


def steps(done: tuple[Done, ...]) -> list[StepRow]:
    """What each pass did; nodes, bytes and damage are of the model after it, where they were measured."""
    largest = max((each.damage or 0.0 for each in done), default=0.0)
    return [
        StepRow(
            each.step,
            each.count,
            each.note,
            fixed(each.seconds, 1),
            f"{each.nodes:,}" if each.nodes else DASH,
            megabytes(each.nbytes or None),
            brief(each.damage),
            100 * (each.damage or 0.0) / largest if largest else 0.0,
        )
        for each in done
    ]


def bars(before: Mapping[str, float], after: Mapping[str, float], unit: float) -> list[Bar]:
    """Two tables of quantities side by side, in `unit`, and their sums; empty unless both are known."""
    if not before or not after:
        return []
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) or after.get(name)]
    pairs = {name: (before.get(name, 0.0) / unit, after.get(name, 0.0) / unit) for name in names}
    pairs["all"] = sum(pair[0] for pair in pairs.values()), sum(pair[1] for pair in pairs.values())
    largest = max((number for name, pair in pairs.items() if name != "all" for number in pair), default=0.0) or 1.0
    return [
        Bar(
            name,
            fixed(old),
            fixed(new),
            signed(100 * (new - old) / old, 0) + " %" if old else DASH,
            (100 * old / largest, 100 * new / largest),
        )
        for name, (old, new) in pairs.items()
    ]


def closeness(seen: Comparison) -> Iterator[tuple[str, str]]:
    """Names and values of the measures that need no labels, and McNemar's test."""
    close = seen.fidelity
    yield "judged on", f"{seen.data} {seen.split}, {seen.rows:,} rows"
    if close.agreement:
        yield "agreement", with_ends(close.agreement, " %")
    yield f"|difference| of {seen.output}", f"mean {brief(close.mean_difference)}, max {brief(close.max_difference)}"
    if close.kl is not None:
        yield "KL divergence", f"{brief(close.kl)} nats"
    if close.correlation is not None:
        yield "correlation with the source", f"{fixed(close.correlation, 2)} points"
    if close.shift is not None:
        yield "shift", signed(close.shift, 4)
    if close.cosine is not None:
        yield "cosine", f"mean {fixed(close.cosine, 5)}, least {fixed(close.min_cosine, 5)}"
    if seen.mcnemar:
        test = seen.mcnemar
        yield "right alone", f"source {test.only_base} rows, this {test.only_candidate}; McNemar p {brief(test.p)}"
    if seen.broken:
        yield "broken", f"NaN or infinity in {plural(seen.broken, 'row')}"


def left_groups(row: Row) -> list[Group]:
    """The nodes that the provider leaves to the CPU, by reason."""
    if row.result is None or row.result.placement is None:
        return []
    return row.result.placement.groups
