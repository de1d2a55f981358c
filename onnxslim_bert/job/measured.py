"""The record of what was measured of a written model; it stands at the end of the model's file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from onnxslim_bert.calibration.loading import is_named
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.documents import read_document
from onnxslim_bert.errors import DataError
from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.trailer import content_sha256, write_trailer
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.gates import Budgets, Verdict
from onnxslim_bert.recipes.provenance import MEASURED, Provenance, notes, provenance_in

MOST_THREADS = 1024
# What the first records did not have: written only where it was given.
SINCE = (
    ("asked", "inputs"),
    ("asked", "task"),
    ("asked", "output"),
    ("asked", "held_back"),
    ("budgets", "min_cosine"),
)


@dataclass(frozen=True)
class Asked:
    """The data of a job as the user named them in `Sources`, of a file its name without folders; "" is none.

    held_back: whether the evaluation rows are a part of the calibration file.
    """

    calibration: str
    evaluation: str
    corpus: str
    rows: int | None
    text_columns: tuple[str, ...]
    label_column: str
    inputs: str = ""
    task: str = ""
    output: str = ""
    held_back: bool = False

    @classmethod
    def of(cls, sources: Sources, evaluated: bool) -> "Asked":
        """The names in `sources`.

        evaluated: whether evaluation rows were used. Where none were named, they are those of the calibration set.
        """
        evaluation = sources.evaluation or (sources.calibration if evaluated and not sources.holds_back else None)
        return cls(
            _base_name(sources.calibration),
            _base_name(evaluation),
            _base_name(sources.corpus),
            sources.rows,
            tuple(sources.text_columns),
            sources.label_column or "",
            sources.inputs,
            sources.task,
            sources.output,
            sources.holds_back,
        )


@dataclass(frozen=True)
class Answers:
    """The main numbers of a `Comparison` of a model (the candidate) with its source (the base) on evaluation rows.

    data, split, rows, fingerprint: the rows. output: the output that was compared. metric, base, candidate: the task
    metric and what both reach, in points; "" and None without labels. agreement: percent of rows that get the same
    class, None without classes. mean_difference: mean |base - candidate| of the outputs. provider: the target on which
    the candidate answered.
    """

    data: str
    split: str
    rows: int
    fingerprint: str
    output: str
    metric: str
    base: float | None
    candidate: float | None
    agreement: float | None
    mean_difference: float
    provider: str

    @classmethod
    def of(cls, seen: Comparison, provider: str) -> "Answers":
        """The main numbers of `seen`."""
        score = seen.scores[0] if seen.scores else None
        return cls(
            seen.data,
            seen.split,
            seen.rows,
            seen.fingerprint,
            seen.output,
            score.metric if score else "",
            score.base.value if score else None,
            score.candidate.value if score else None,
            seen.fidelity.agreement.value if seen.fidelity.agreement else None,
            seen.fidelity.mean_difference,
            provider,
        )


@dataclass(frozen=True)
class Measured:
    """How one model file was evaluated, and the result. It holds no times, as these are of one machine.

    content_sha256: of the file's bytes before this record, followed by its external data. tokenizer_sha256: of the
    tokenizer.json with which the source read texts, own_tokenizer_sha256: of the one for the model; "" without a file.
    target, allow_fallback: as in `Deployment`. max_length, threads, seed: as in `Working`. asked: the data by name;
    None where a program gave the rows themselves. budgets, strict: as in `Gate`. outcomes: the outcome of each verdict
    by the name of its gate, without that on the speed-up. answers: None without evaluation rows.
    """

    SCHEMA: ClassVar[int] = 1

    schema: int
    content_sha256: str
    tokenizer_sha256: str
    own_tokenizer_sha256: str
    target: str
    allow_fallback: bool
    max_length: int
    threads: int
    seed: int
    asked: Asked | None
    budgets: Budgets
    strict: bool
    outcomes: dict[str, str]
    answers: Answers | None

    def __post_init__(self) -> None:
        counts = (self.max_length, self.threads, self.asked.rows if self.asked and self.asked.rows is not None else 1)
        if min(counts) < 1 or self.threads > MOST_THREADS or self.seed < 0:
            found = f"max_length, threads and rows {counts}, seed {self.seed}"
            raise DataError(f"{MEASURED} holds {found}: needed counts of 1 or more, at most {MOST_THREADS} threads")

    def sealing(self, path: Path, verdicts: Sequence[Verdict]) -> "Measured":
        """The record of the file at `path` as it is now, with these verdicts.

        Raises ModelError for a file that is no model.
        """
        outcomes: dict[str, str] = {
            verdict.gate: verdict.outcome for verdict in verdicts if verdict.gate != "min-speedup"
        }
        return replace(self, content_sha256=content_sha256(path, MEASURED), outcomes=outcomes)


def record(path: Path, measured: Measured) -> None:
    """Append `measured` to the model file at `path`, in place of an earlier record. Raises OutputError."""
    document = asdict(measured)
    for part, name in SINCE:
        inner = document[part]
        if inner is not None and not inner[name]:
            del inner[name]
    write_trailer(path, MEASURED, json.dumps(document, sort_keys=True, allow_nan=False))


def read(path: Path) -> tuple[Provenance, Measured | None]:
    """The provenance and the record in the file at `path`; None in place of a record that is not there.

    Raises ModelError for a file without provenance, DataError for a record that cannot be read.
    """
    held = notes(path)
    text = held.get(MEASURED)
    measured = None if text is None else read_document(Measured, text.encode(), f"{path}: {MEASURED}")
    return provenance_in(path, held), measured


def tokenizer_sha256(tokenizer: Tokenizer | None) -> str:
    """Of its tokenizer.json; "" without one."""
    return "" if tokenizer is None or tokenizer.file is None else file_sha256(tokenizer.file)


def _base_name(spec: str | None) -> str:
    return "" if spec is None else spec if is_named(spec) else Path(spec).name
