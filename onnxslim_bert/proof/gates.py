"""Budgets, and whether a measured value meets them beyond what chance could explain."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onnxslim_bert.errors import (
    AccuracyGateError,
    CoverageGateError,
    DataError,
    GateError,
    LatencyGateError,
    SizeGateError,
)
from onnxslim_bert.proof.intervals import Interval

GateName = Literal[
    "made", "finite", "max-drop", "min-agreement", "min-cosine", "min-speedup", "coverage", "max-size", "max-download"
]
Outcome = Literal["met", "missed", "inconclusive"]

# In the order in which a miss decides the exit code.
GATES: dict[GateName, type[GateError]] = {
    "made": GateError,
    "finite": AccuracyGateError,
    "max-drop": AccuracyGateError,
    "min-agreement": AccuracyGateError,
    "min-cosine": AccuracyGateError,
    "min-speedup": LatencyGateError,
    "coverage": CoverageGateError,
    "max-size": SizeGateError,
    "max-download": SizeGateError,
}


@dataclass(frozen=True)
class Budgets:
    """The budgets that a candidate is held to; None is no budget.

    max_drop: points of the task metric.
    min_agreement: percent of answers that must be the base's (`Fidelity.agreement`).
    min_speedup: latency of the base over that of the candidate.
    max_size: bytes, external data included.
    min_cosine: mean cosine of the candidate's embeddings to the base's, of the same texts.
    max_download: bytes after gzip (`graph.download`), external data included.
    """

    max_drop: float | None = None
    min_agreement: float | None = None
    min_speedup: float | None = None
    max_size: int | None = None
    min_cosine: float | None = None
    max_download: int | None = None

    @property
    def judges_rows(self) -> bool:
        """Whether a budget is held against answers to rows."""
        return any(budget is not None for budget in (self.max_drop, self.min_agreement, self.min_cosine))

    @property
    def on_rows(self) -> str:
        """What such a budget is for, in words."""
        return "the drop or the agreement" if self.min_cosine is None else "the cosine"


@dataclass(frozen=True)
class Verdict:
    """The outcome of one budget: met, missed, or inconclusive, when the value meets it and its interval does not.

    Example: at most 1 point of drop is allowed. 0.3 (-0.2 to 0.8) meets it, 1.2 misses it, and 0.8 (0.2 to 1.4) is
    inconclusive: the rows are too few to tell. where: the model and the provider, when there are several.
    """

    gate: GateName
    outcome: Outcome
    note: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.outcome}: {self.note}"

    @property
    def name(self) -> str:
        """The gate, and where it was held."""
        return f"{self.gate} on {self.where}" if self.where else self.gate

    def fails(self, strict: bool) -> bool:
        """Whether this fails the build."""
        return self.outcome == "missed" or (strict and self.outcome == "inconclusive")


def at_most(gate: GateName, interval: Interval, budget: float, unit: str) -> Verdict:
    """The verdict on a value that may not exceed its budget."""
    note = f"{_spread(interval, unit)}, wanted at most {budget:g}{unit}"
    return _verdict(gate, interval.value <= budget, interval.high <= budget, note)


def at_least(gate: GateName, interval: Interval, budget: float, unit: str) -> Verdict:
    """The verdict on a value that must reach its budget."""
    note = f"{_spread(interval, unit)}, wanted at least {budget:g}{unit}"
    return _verdict(gate, interval.value >= budget, interval.low >= budget, note)


def enforce(verdicts: Sequence[Verdict], strict: bool = False) -> None:
    """Raise the error of the first failed gate, in the order of GATES, naming every failed one."""
    failed = sorted((v for v in verdicts if v.fails(strict)), key=lambda v: list(GATES).index(v.gate))
    if failed:
        raise GATES[failed[0].gate]("; ".join(map(str, failed)))


def parse_size(text: str) -> int:
    """Bytes in "24MB", "23.5 MiB" or "24000000"; MB is 10**6 and MiB is 2**20."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(i?)B?", text.strip(), re.IGNORECASE)
    if match is None or (match[3] and not match[2]):
        raise DataError(f"size '{text}' is not a number of bytes: write it like 24MB, 23.5MiB or 24000000")
    unit = 1024 if match[3] else 1000
    return round(float(match[1]) * float(unit ** " KMG".index(match[2].upper() or " ")))


def _verdict(gate: GateName, value_meets: bool, end_meets: bool, note: str) -> Verdict:
    if not value_meets:
        return Verdict(gate, "missed", note)
    if not end_meets:
        return Verdict(gate, "inconclusive", f"{note}: the data cannot carry this budget")
    return Verdict(gate, "met", note)


def _spread(interval: Interval, unit: str) -> str:
    ends = f" ({interval.low:.4g} to {interval.high:.4g})" if interval.low < interval.high else ""
    return f"{interval.value:.4g}{unit}{ends}"
