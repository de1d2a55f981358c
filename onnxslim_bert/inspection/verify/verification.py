"""What a verification found, and which exit code that means."""

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
    """Whether something is what was recorded: "content", "source", "evaluation rows", ..., "answers".

    `inconclusive`: it is not here to be looked at.
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
    """The checks of one model file, and the gate run again.

    comparison, latencies, verdicts: of the gate run again. Without rows, comparison is None and only budgets that need
    none are held; all are empty where the file or its data are not what was recorded. strict: what could not be decided
    fails, too.
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
        """Raise GateError (exit code 2) for what is not as recorded, AccuracyGateError (3) where the answers alone are
        not, and as `gates.enforce` for budgets.
        """
        failed = [check for check in self.checks if self.fails(check)]
        if failed:
            kind = AccuracyGateError if [check.name for check in failed] == [ANSWERS] else GateError
            raise kind("; ".join(map(str, failed)))
        enforce(self.verdicts, self.strict or self.measured.strict)
