"""What was measured of each candidate of one export, and the table of it in Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from measured import Usage

from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison


@dataclass(frozen=True)
class Row:
    """One candidate; what was not measured is None or empty, and `failure` says why where it should have been.

    usage: of the process that made the file. comparison: with the export. latencies: one a batch and length.
    """

    name: str
    nbytes: int = 0
    usage: Usage | None = None
    comparison: Comparison | None = None
    latencies: tuple[Latency, ...] = ()
    failure: str = ""

    def latency(self, length: int, batch: int = 1) -> Latency | None:
        """The latency of `batch` sentences of so many tokens."""
        return next((each for each in self.latencies if (each.batch, each.length) == (batch, length)), None)


@dataclass(frozen=True)
class Export:
    """One export and its candidates, of which the first is itself. threads: of the sessions that were timed."""

    name: str
    layers: int
    hidden: int
    rows: tuple[Row, ...]
    threads: int = 1

    def row(self, name: str) -> Row:
        """The candidate called `name`; an empty row when it was left out."""
        return next((row for row in self.rows if row.name == name), Row(name))


def export_table(export: Export, lengths: Sequence[int], batches: Sequence[int] = (1,)) -> str:
    """One line a candidate; times of several sentences at once say how many: "ms at 8 x 128"."""
    workloads = [(length, batch) for batch in batches for length in lengths]
    times = [f"ms at {f'{batch} x ' if batch > 1 else ''}{length} (speed-up)" for length, batch in workloads]
    head = ["", "MB", "accuracy", "agreement %", "mean difference", *times, "CPU s", "peak MB"]
    return markdown(head, [_cells(row, workloads) for row in export.rows])


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its first column to the left and the others to the right."""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row, workloads: Sequence[tuple[int, int]]) -> list[str]:
    if row.failure:
        return [row.name, f"failed: {row.failure.replace('|', '/')}", *[""] * (len(workloads) + 5)]
    return [
        row.name,
        f"{row.nbytes / 1e6:.1f}",
        *_fidelity(row.comparison),
        *(_time(row.latency(*workload)) for workload in workloads),
        *((f"{row.usage.cpu_s:.1f}", f"{row.usage.peak_bytes / 1e6:.0f}") if row.usage else ("", "")),
    ]


def _fidelity(seen: Comparison | None) -> tuple[str, str, str]:
    if seen is None:
        return "", "", ""
    accuracy = f"{seen.scores[0].candidate.value:.2f}" if seen.scores else ""
    agreement = f"{seen.fidelity.agreement.value:.2f}" if seen.fidelity.agreement else ""
    return accuracy, agreement, f"{seen.fidelity.mean_difference:.3f}"


def _time(latency: Latency | None) -> str:
    return f"{latency.median_ms:.2f} ({latency.speedup.value:.2f}x)" if latency else ""
