"""What was measured of each model of the structure benchmark, and the table of it in Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peer_table import markdown
from structure_cases import Cut, Figure, Limit

from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison


@dataclass(frozen=True)
class Row:
    """One model; what was not measured is None, and `failure` says why where it should have been.

    recipe: the passes; empty for a peer. cut: what was asked to go. file: None where there is none that runs.
    nbytes: of the file. cpu_s: of making it. flops: of the encoder, as a share of the original's.
    comparison: with the original. latency: in one run with the original.
    """

    name: str
    asked: tuple[Limit, ...] = ()
    recipe: str = ""
    cut: Cut | None = None
    file: Path | None = None
    nbytes: int = 0
    cpu_s: float | None = None
    flops: float | None = None
    comparison: Comparison | None = None
    latency: Latency | None = None
    failure: str = ""

    def figure(self, name: Figure) -> float | None:
        """A figure that limits are set on."""
        if name == "drop":
            return self.comparison.scores[0].drop.value if self.comparison and self.comparison.scores else None
        if name == "cosine":
            return self.comparison.fidelity.cosine if self.comparison else None
        if name == "speed-up":
            return self.latency.speedup.value if self.latency else None
        return self.nbytes / 1e6 or None

    def verdicts(self) -> list[dict[str, Any]]:
        """Every limit as JSON; `met` is None where its figure was not measured."""
        found = [(limit, self.figure(limit.figure)) for limit in self.asked]
        return [
            {"limit": str(limit), "value": value, "met": None if value is None else limit.met(value, limit.value)}
            for limit, value in found
        ]


def structure_table(rows: Sequence[Row], length: int) -> str:
    """One line a model; of embeddings the cosine, of classifiers what they answer."""
    embeddings = any(row.figure("cosine") is not None for row in rows)
    answers = ["cosine", "worst"] if embeddings else ["accuracy", "drop", "agreement %", "mean difference"]
    head = ["", *answers, "MB", "FLOPs %", f"ms at {length} (speed-up)", "CPU s", "asked"]
    return markdown(head, [_cells(row, len(answers)) for row in rows])


def _cells(row: Row, answers: int) -> list[str]:
    if row.failure:
        asked = ", ".join(map(str, row.asked))
        return [row.name, f"failed: {row.failure.replace('|', '/')}", *[""] * (answers + 3), asked]
    return [
        row.name,
        *_answers(row.comparison, answers),
        f"{row.nbytes / 1e6:.1f}",
        "" if row.flops is None else f"{100 * row.flops:.1f}",
        f"{row.latency.median_ms:.2f} ({row.latency.speedup.value:.2f}x)" if row.latency else "",
        "" if row.cpu_s is None else f"{row.cpu_s:.1f}",
        ", ".join(limit.verdict(row.figure(limit.figure)) for limit in row.asked),
    ]


def _answers(seen: Comparison | None, answers: int) -> list[str]:
    if seen is None:
        return [""] * answers
    close = seen.fidelity
    if close.cosine is not None:
        return [f"{close.cosine:.4f}", f"{close.min_cosine:.4f}"]
    scores = [f"{seen.scores[0].candidate.value:.2f}", f"{seen.scores[0].drop.value:.2f}"] if seen.scores else ["", ""]
    return [*scores, f"{close.agreement.value:.2f}" if close.agreement else "", f"{close.mean_difference:.3f}"]
