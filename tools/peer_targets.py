"""The figures that the default int8 model is to reach, and whether it does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import ge, le
from typing import Any

from peer_table import Export, Row, markdown

OURS = "onnxslim"
PEERS = "ort-"  # how a peer's name begins
LENGTH = 128  # tokens at which speed is judged


@dataclass(frozen=True)
class Target:
    """value: of an export, None where something that it needs was not measured. met: compares it with the limit."""

    what: str
    value: Callable[[Export], float | None]
    met: Callable[[float, float], bool]
    limit: float

    def __str__(self) -> str:
        return f"{self.what} {'≥' if self.met is ge else '≤'} {self.limit:g}"

    def verdict(self, export: Export) -> str:
        """`reached` or not, with the value as far as it decides."""
        value = self.value(export)
        if value is None:
            return "not measured"
        return f"{value:.4g} {'reached' if self.met(value, self.limit) else '**not reached**'}"


def accuracy_lost(export: Export) -> float | None:
    seen = export.row(OURS).comparison
    return seen.scores[0].drop.value if seen and seen.scores else None


def agreement(export: Export) -> float | None:
    seen = export.row(OURS).comparison
    return seen.fidelity.agreement.value if seen and seen.fidelity.agreement else None


def mean_difference(export: Export) -> float | None:
    seen = export.row(OURS).comparison
    return seen.fidelity.mean_difference if seen else None


def file_mb(export: Export) -> float | None:
    return export.row(OURS).nbytes / 1e6 or None


def speedup(export: Export) -> float | None:
    return _speedup(export.row(OURS))


def speedup_over_peers(export: Export) -> float | None:
    ours, peers = speedup(export), [_speedup(row) for row in export.rows if row.name.startswith(PEERS)]
    best = max((peer for peer in peers if peer), default=None)
    return ours / best if ours and best else None


def cpu_s(export: Export) -> float | None:
    usage = export.row(OURS).usage
    return usage.cpu_s if usage else None


def peak_mb(export: Export) -> float | None:
    usage = export.row(OURS).usage
    return usage.peak_bytes / 1e6 if usage else None


def peak_over_file(export: Export) -> float | None:
    usage = export.row(OURS).usage
    return usage.peak_bytes / export.rows[0].nbytes if usage else None


def _speedup(row: Row) -> float | None:
    latency = row.latency(LENGTH)
    return latency.speedup.value if latency else None


# By layers and width of the encoder.
TARGETS: dict[tuple[int, int], tuple[Target, ...]] = {
    (6, 384): (
        Target("accuracy points lost", accuracy_lost, le, 0.3),
        Target("agreement with fp32, %,", agreement, ge, 99.4),
        Target("mean logit difference", mean_difference, le, 0.06),
        Target("file, MB,", file_mb, le, 24),
        Target("speed over fp32", speedup, ge, 3.4),
        Target("speed over the best peer", speedup_over_peers, ge, 1.25),
        Target("CPU of the whole command, s,", cpu_s, le, 25),
        Target("its peak memory, MB,", peak_mb, le, 450),
    ),
    (12, 768): (
        Target("speed over fp32", speedup, ge, 5),
        Target("peak memory of the whole command over the file", peak_over_file, le, 3),
    ),
}


def targets_tables(exports: Sequence[Export]) -> str:
    """For each size of encoder with targets, one line a target and one column an export."""
    tables: list[str] = []
    for size, targets in TARGETS.items():
        judged = [export for export in exports if (export.layers, export.hidden) == size]
        head = ["target", *(export.name for export in judged)]
        if judged:
            tables.append(markdown(head, [[str(t), *(t.verdict(export) for export in judged)] for t in targets]))
    return "\n\n".join(tables)


def targets_json(exports: Sequence[Export]) -> list[dict[str, Any]]:
    """Every target of every export; `reached` is None where the value was not measured."""
    found: list[dict[str, Any]] = []
    for export in exports:
        for target in TARGETS.get((export.layers, export.hidden), ()):
            value = target.value(export)
            reached = None if value is None else target.met(value, target.limit)
            found.append({"export": export.name, "target": str(target), "value": value, "reached": reached})
    return found
