"""The report of a job: what it did to the model, and what the result is worth."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.report_text import lost_scripts, saturation, searched, timed, unstable, where
from onnxslim_bert.job.saturating import Saturating
from onnxslim_bert.job.seal import Gate
from onnxslim_bert.job.search.frontier import SearchResult
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.comparison_lines import compared
from onnxslim_bert.proof.documents import report_json
from onnxslim_bert.proof.gates import Verdict, enforce
from onnxslim_bert.proof.worst import Disagreement
from onnxslim_bert.recipes.provenance import Provenance
from onnxslim_bert.recipes.run import Done
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.table import target_named
from onnxslim_bert.wording import si


@dataclass(frozen=True)
class Report:
    """What a job did and what its result is worth. `str` of it is the text that the command line prints.

    source_bytes, output_bytes: of the files with their external data, or of a whole folder. provenance: what the result
    says of how it was made. steps: what each pass did. methods: the error of each range method on held-back rows; empty
    when the recipe names one. saturating: what int8 sums may lose on some CPUs, measured on calibration rows; None
    where no int8 layer for the CPU was run on such rows.
    placement: where the nodes run, None on the CPU. unproven: what could not be shown here, and why; "" for nothing.
    comparison: task metric and fidelity against the source on evaluation rows, None without these; the result answered
    on the target `proven_on`. worst: the rows of the largest difference.
    latencies: of the source on the CPU, then of the result on its target, timed in turns: milliseconds for one row of
    128 tokens where the model takes them; empty where nothing was timed.
    buckets: the file for each length, when there are several; all other fields are then of the longest one.
    deployment: where it runs. max_length, threads, seed: as they were used. gate: the budgets; verdicts: one on each,
    and on what every result is held to. published: whether the result was written, which a missed budget prevents.
    found: what a search measured on its way to the recipe; None without a search. weights_file: the name of the file
    beside `output` that holds its weights; "" where they are in `output` itself. unjudged: why the rows held back of a
    calibration file did not judge; "" where they did, or none were.
    """

    source: Path
    output: Path
    source_bytes: int
    output_bytes: int
    provenance: Provenance
    steps: tuple[Done, ...]
    methods: Mapping[str, float]
    saturating: Saturating | None
    placement: Placement | None
    unproven: str
    proven_on: str
    comparison: Comparison | None
    worst: tuple[Disagreement, ...]
    latencies: tuple[Latency, ...]
    buckets: Mapping[int, str]
    deployment: Deployment
    max_length: int
    threads: int
    seed: int
    gate: Gate
    verdicts: tuple[Verdict, ...]
    published: bool
    found: SearchResult | None = None
    weights_file: str = ""
    unjudged: str = ""

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """The lines of the text: passes, placement, answers, latency, verdicts and size, in this order."""
        yield from (f"{done.step}: {done.note}" for done in self.steps)
        if self.found is not None:
            yield from searched(self.found)
        if self.buckets:
            yield "lengths: " + ", ".join(f"{length} in {file}" for length, file in self.buckets.items())
        yield from where(self.placement, self.unproven)
        if self.comparison is not None:
            yield from compared(self.comparison)
            if self.proven_on != "cpu":
                yield f"answers of the result: on {self.proven_on}"
        yield from timed(self.latencies)
        target = target_named(self.deployment.target)
        if not self.latencies and (target.emulated or target.absent()):
            yield "latency: not measured, as nothing on this machine runs it at the speed of the target"
        yield from saturation(self.saturating)
        yield from unstable(self.steps)
        yield from lost_scripts(self.steps)
        yield from map(str, self.verdicts)
        name = self.output if self.published else "nothing written, as a budget was missed"
        weights = f" with {self.weights_file}" if self.weights_file and self.published else ""
        yield f"{name}{weights}: size {si(self.output_bytes, 'B')}, from {si(self.source_bytes, 'B')}"
        if self.comparison is None:
            why = f": {self.unjudged}" if self.unjudged else ""
            yield f"accuracy: not measured{why}; name evaluation texts with --data"

    def json(self) -> dict[str, Any]:
        """The document that `--json` prints and that lies beside a model (`onnxslim schema report`)."""
        return report_json(self)

    def enforce(self) -> None:
        """Raise the GateError of the first budget that failed; nothing when the model was written."""
        if not self.published:
            enforce(self.verdicts, self.gate.strict)
