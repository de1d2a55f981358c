"""What a validation found, and the document that it makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnxslim_bert import __version__
from onnxslim_bert.documents import plain
from onnxslim_bert.proof.bench import Bench
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.documents import SCHEMA
from onnxslim_bert.proof.gates import Budgets, Verdict
from onnxslim_bert.targets.placement import Placement


@dataclass(frozen=True)
class Validation:
    """The evidence about one candidate on one target, the budgets it was held to, and a verdict on each.

    base_bytes, candidate_bytes: the files with their external data.
    bench: times of the base on the CPU provider and of the candidate on the target; None where they were not asked for
    or the target is emulated.
    placement: where the candidate's nodes ran.
    """

    base: str
    candidate: str
    base_bytes: int
    candidate_bytes: int
    comparison: Comparison
    bench: Bench | None
    batch_size: int
    max_length: int
    threads: int
    budgets: Budgets
    verdicts: tuple[Verdict, ...]
    target: str
    placement: Placement

    def to_json(self) -> dict[str, Any]:
        """One JSON-ready document."""
        return {"schema": SCHEMA, "onnxslim_bert": __version__, **plain(self)}


def document(results: Sequence[Validation]) -> dict[str, Any]:
    """One JSON-ready document: the validation itself when there is one, else a list of them."""
    if len(results) == 1:
        return results[0].to_json()
    return {"schema": SCHEMA, "onnxslim_bert": __version__, "validations": plain(results)}
