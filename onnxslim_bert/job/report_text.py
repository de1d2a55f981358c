"""The parts of a report as people read them."""

from collections.abc import Iterator, Sequence

from onnxslim_bert.errors import as_line
from onnxslim_bert.job.saturating import Saturating
from onnxslim_bert.job.search.frontier import MeasuredPoint, SearchResult
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.machine import instruction_sets, int8_advice
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.class_losses import loss_lines
from onnxslim_bert.recipes.run import Done
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.wording import aligned, plural, tokens_a_row

UNITS = {"heads": "prune-heads", "neurons": "prune-ffn"}  # and the pass that removes them
REASONS = 4  # why nodes are left to the CPU, that are said
HEADER = ("", "speed", "size", "damage", "predicted", "drop, points")


def where(placement: Placement | None, unproven: str) -> Iterator[str]:
    """Where a model's nodes run, what keeps the others off, and what could not be shown of it."""
    if placement:
        yield placed(placement) + f" ({unproven})" * bool(unproven)
        yield from (as_line(f"left to the CPU: {group}") for group in placement.groups[:REASONS])
        if (more := len(placement.groups) - REASONS) > 0:
            yield f"and for {plural(more, 'reason')} more, which `onnxslim explain` says"
    elif unproven:
        yield f"not run: {unproven}"


def placed(placement: Placement) -> str:
    """How much of a model a provider takes, or is predicted to take."""
    pieces = f"{placement.partitions} piece{'s' * (placement.partitions != 1)}"
    verb = "would take" if placement.predicted else "takes"
    return f"{placement.provider} {verb} {placement.taken} of {placement.total} nodes in {pieces}"


def timed(latencies: Sequence[Latency]) -> Iterator[str]:
    """How fast the result is against its source, where both were timed."""
    for slow, fast in [latencies] if latencies else []:
        gain = fast.speedup
        yield (
            f"latency, batch {fast.batch}, {tokens_a_row(fast.length)}: {slow.usual_ms:.2f} ms -> "
            f"{fast.usual_ms:.2f} ms, {gain.value:.2f}x faster ({gain.low:.2f} to {gain.high:.2f})"
        )


def saturation(found: Saturating | None) -> Iterator[str]:
    """A warning of int8 sums that can saturate on this CPU, or a word on those of others; no line where none can."""
    remedy = "`quantize --reduce-range`, in a recipe quantize-static{reduce-range=true}"
    if found and found.layers and int8_advice(instruction_sets()).saturates:
        yield (
            f"this CPU has no VNNI: int8 sums of {plural(found.layers, 'layer')} can saturate, with a loss of up to "
            f"{found.loss:.1%} ({found.worst}): {remedy} avoids it"
        )
    elif found and found.layers:
        yield f"made for CPUs with VNNI, AMX or of ARM; for x86 CPUs without: {remedy}"


def unstable(steps: Sequence[Done]) -> Iterator[str]:
    """A word on ranges that are found at run time; no line where none are."""
    if any(done.step.startswith("quantize-dynamic") for done in steps):
        yield "dynamic int8: answers depend on the other texts and the padding of a batch; static int8 fixes the ranges"


def lost_scripts(steps: Sequence[Done]) -> Iterator[str]:
    """A warning of scripts that a trimmed vocabulary no longer serves; no line where there are none."""
    lost = {script: count for done in steps for script, count in done.details.get("lost_scripts", {}).items()}
    if lost:
        named = ", ".join(f"{script} ({count} tokens)" for script, count in sorted(lost.items(), key=lambda x: -x[1]))
        yield (
            f"warning: the texts have next to nothing in {named}: of texts in these scripts only single characters "
            "keep tokens; add such texts by --corpus to keep them"
        )


def searched(found: SearchResult) -> Iterator[str]:
    """The models of a search, which rows the chosen one loses, and what could not be narrowed."""
    yield from built(found.frontier, found.refitted, found.targets, found.judged, found.chosen.recipe)
    yield from loss_lines(found.losses, found.judged)
    if "sensitivities" in found.tables:
        kinds = {one["site"].kind for one in found.tables["sensitivities"]}
        yield from (f"{kind} were not searched: {step} says why" for kind, step in UNITS.items() if kind not in kinds)


def built(
    frontier: Sequence[MeasuredPoint],
    refitted: Sequence[MeasuredPoint],
    targets: Targets,
    judged: str,
    chosen: str = "",
) -> Iterator[str]:
    """A table of the models on a search's frontier, slowest first, and their recipes; "->" marks the chosen one.

    refitted: the frontier of those that were not distilled, where some were: a second table. judged: see
    `SearchResult`. chosen: a recipe; "" where no model meets the targets.
    """
    points = list(dict.fromkeys((*frontier, *refitted)))
    yield from _table(frontier, points, chosen)
    if refitted:
        yield "without distillation:"
        yield from _table(refitted, points, chosen)
    packed = "size: after gzip; " * targets.packed
    damage = "damage: |difference| / |original| of the outputs on held-back rows"
    yield f"{packed}{damage}; drop: on {judged}, below 0 is better"
    for number, point in enumerate(points, start=1):
        yield f'{number}: -p "{point.recipe}"'


def _table(shown: Sequence[MeasuredPoint], points: Sequence[MeasuredPoint], chosen: str) -> Iterator[str]:
    """points: by whose order the models are numbered."""
    yield from aligned([HEADER, *(_row(1 + points.index(point), point, chosen) for point in shown)])


def _row(number: int, point: MeasuredPoint, chosen: str) -> tuple[str, ...]:
    taken = "->" if point.recipe == chosen else "  "
    return (
        f"{taken} {number}",
        f"{point.speedup:.2f}x",
        f"{point.nbytes / 1e6:.1f} MB",
        f"{point.damage:.3f}",
        f"{point.predicted:.3f}",
        f"{point.drop:.2f}",
    )
