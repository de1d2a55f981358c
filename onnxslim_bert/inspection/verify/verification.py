"""The result of a verification: its checks, the gate that was run again, and the exit code that follows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxslim_bert.errors import AccuracyGateError, GateError
from onnxslim_bert.job.measured import Measured
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.gates import Outcome, Verdict, enforce
from onnxslim_bert.recipes.provenance import Provenance

ANSWERS = "answers"


@dataclass(frozen=True)
class Check:
    """Whether one thing is as it was recorded. name: "content", "source", "evaluation rows", ..., "answers".

    outcome: "met" when it is, "missed" when it is not, "inconclusive" when it could not be looked at.
    """

    name: str
    outcome: Outcome
    note: str

    def __str__(self) -> str:
        return f"{self.name} {self.outcome}: {self.note}"

    def fails(self, strict: bool) -> bool:
        """Whether this fails the build."""
        return self.outcome == "missed" or (strict and self.outcome == "inconclusive")


@dataclass(frozen=True)
class Verification:
    """A model file held against its own record: checks, and the gate that it passed, run again.

    model: the file; base: its source. provenance, measured: its record. checks: on bytes, data and answers. comparison,
    latencies, verdicts: of the gate run again. When a check before it failed, the gate is not run, and these are empty.
    Without evaluation rows comparison is None, and budgets for the drop and the agreement are not judged.
    strict: an inconclusive check or verdict fails, too.
    """

    model: Path
    base: Path
    provenance: Provenance
    measured: Measured
    checks: tuple[Check, ...]
    comparison: Comparison | None
    latencies: tuple[Latency, ...]
    verdicts: tuple[Verdict, ...]
    strict: bool

    @property
    def cases(self) -> tuple[Any, ...]:
        """Checks and verdicts, each with a name, an outcome and a note."""
        return (*self.checks, *self.verdicts)

    def fails(self, case: Check | Verdict) -> bool:
        """Whether this fails the build: budgets are held as strictly as they were when the model was made."""
        return case.fails(self.strict or (isinstance(case, Verdict) and self.measured.strict))

    def enforce(self) -> None:
        """Raise the error of the first thing that fails; nothing when all holds.

        GateError (exit code 2) for something that is not as recorded, AccuracyGateError (3) when that is the answers
        alone; then the errors of budgets, as `gates.enforce`.
        """
        failed = [check for check in self.checks if self.fails(check)]
        if failed:
            kind = AccuracyGateError if all(check.name.startswith(ANSWERS) for check in failed) else GateError
            raise kind("; ".join(map(str, failed)))
        enforce(self.verdicts, self.strict or self.measured.strict)
