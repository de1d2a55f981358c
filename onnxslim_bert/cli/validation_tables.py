"""What `onnxslim validate` prints for people."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from onnxslim_bert.cli.screen import console, echo, plain_table
from onnxslim_bert.proof.bench import entry_name
from onnxslim_bert.proof.comparison_lines import facts, fallen, spread
from onnxslim_bert.proof.validation import Validation
from onnxslim_bert.targets.table import target_named
from onnxslim_bert.wording import plural


def show(result: Validation) -> None:
    """Print the evidence and the verdicts."""
    seen, before, after = result.comparison, result.base_bytes / 1e6, result.candidate_bytes / 1e6
    echo(f"{seen.data} {seen.split}, {plural(seen.rows, 'row')}; intervals hold with 95 %, a drop below 0 is better")
    table = plain_table("", "base", "candidate", "drop")
    for score in seen.scores:
        table.add_row(score.metric, spread(score.base), spread(score.candidate), fallen(score).removeprefix("drop "))
    table.add_row("size", f"{before:.1f} MB", f"{after:.1f} MB", f"{before / after:.2f}x")
    if result.bench:
        first, second = result.bench.latencies
        gain = second.speedup
        faster = f"{gain.value:.2f}x ({gain.low:.2f} to {gain.high:.2f})"
        table.add_row("latency", f"{first.median_ms:.2f} ms", f"{second.median_ms:.2f} ms", faster)
        peaks = [f"{took.peak_bytes / 1e6:.0f} MB" for took in result.bench.footprints.values()]
        if peaks:
            table.add_row("peak memory", *peaks)
    console().print(table)
    for line in (*facts(seen), *map(str, result.verdicts)):
        echo(line)


def show_all(results: Sequence[Validation]) -> None:
    """Print one row for every candidate and provider, and the verdicts."""
    seen = results[0].comparison
    echo(f"{seen.data} {seen.split}, {plural(seen.rows, 'row')}; base: {results[0].base} on cpu")
    names = ["provider", "candidate", *(score.metric for score in seen.scores[:1]), "agreement", "|difference|"]
    table = plain_table(*names, "nodes", "pieces", "MB", "speed-up", "peak MB")
    for result in results:
        table.add_row(*row(result))
    console().print(table)
    for verdict in (verdict for result in results for verdict in result.verdicts):
        echo(str(verdict))
    for name in dict.fromkeys(result.target for result in results if target_named(result.target).emulated):
        echo(f"{name}: no latency, since an emulator ran it")


def row(result: Validation) -> Iterator[str]:
    """What one candidate did on one provider."""
    seen, close, place, times = result.comparison, result.comparison.fidelity, result.placement, result.bench
    yield from (result.target, Path(result.candidate).name)
    for score in seen.scores[:1]:
        yield f"{score.candidate.value:.2f} ({0.0 - score.drop.value:+.2f})"
    yield f"{close.agreement.value:.2f} %" if close.agreement else "-"
    yield f"{close.mean_difference:.4f}"
    yield f"{place.taken}/{place.total} ({place.share:.1%})"
    yield str(place.partitions)
    yield f"{result.candidate_bytes / 1e6:.1f}"
    yield f"{times.latencies[1].speedup.value:.2f}x, {times.latencies[1].median_ms:.2f} ms" if times else "-"
    took = times.footprints.get(entry_name(Path(result.candidate), target_named(result.target))) if times else None
    yield f"{took.peak_bytes / 1e6:.0f}" if took else "-"
