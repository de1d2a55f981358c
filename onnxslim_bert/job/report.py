"""What a job did, and what it is worth: the one report of every job."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.report_text import saturation, searched, timed, where
from onnxslim_bert.job.saturating import Saturating
from onnxslim_bert.job.seal import Gate
from onnxslim_bert.job.search.frontier import SearchResult
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.comparison_lines import compared
from onnxslim_bert.proof.documents import report_json
from onnxslim_bert.proof.gates import Verdict, enforce
from onnxslim_bert.proof.wording import si
from onnxslim_bert.proof.worst import Disagreement
from onnxslim_bert.recipes.provenance import Provenance
from onnxslim_bert.recipes.run import Done
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.table import target_named


@dataclass(frozen=True)
class Report:
    """What was done and what it is worth. `str` of it is what the command line prints.

    source_bytes, output_bytes: with external data, of a folder all of it. steps: one for each pass.
    methods: the error of each range method on held-back rows, empty when the recipe names one. saturating: of int8
    layers for the CPU that calibration rows were run through; None for all else.
    placement: where the nodes run, None on the CPU. unproven: what could not be shown here, and why.
    comparison: the task metric and fidelity on evaluation rows, on the target `proven_on`; None without evaluation
    rows. worst: rows of largest difference. latencies: milliseconds of the source on the CPU and of the result on its
    target, interleaved, batch 1, 128 tokens where the model takes them; empty where nothing was timed.
    buckets: the file of each length, when there are several; all else is then said of the longest one.
    max_length: as it was used. gate, verdicts: what it was held to, and on every budget. published: whether it was
    written, which a missed budget prevents. found: what a search measured on its way to the recipe.
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

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """What was done, where it runs, how it answers, how fast it is, what it was held to, and its size."""
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
        yield from map(str, self.verdicts)
        name = self.output if self.published else "nothing written, as a budget was missed"
        yield f"{name}: size {si(self.output_bytes, 'B')}, from {si(self.source_bytes, 'B')}"
        if self.comparison is None:
            yield "accuracy: not measured; name evaluation texts with --data"

    def json(self) -> dict[str, Any]:
        """The document that `--json` prints and that lies beside a model (`onnxslim schema report`)."""
        return report_json(self)

    def enforce(self) -> None:
        """Raise the GateError of the first budget that kept the model from being written; none when it was written."""
        if not self.published:
            enforce(self.verdicts, self.gate.strict)
