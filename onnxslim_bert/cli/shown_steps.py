"""The models that a recipe's steps left, measured and printed as a table."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxslim_bert.cli.progress import progress_bar
from onnxslim_bert.cli.screen import console, plain_table
from onnxslim_bert.wording import si

if TYPE_CHECKING:
    from onnxslim_bert.calibration.working import Working
    from onnxslim_bert.inspection.step_table import StepMeasured
    from onnxslim_bert.job.data import Sources
    from onnxslim_bert.job.report import Report

NAME = "steps.json"


def show_steps(report: "Report", folder: Path, rows: "Sources", working: "Working", *, as_json: bool) -> None:
    """Measure the source of `report` and the models in `folder`; write that as NAME there, and print it as a table.

    rows, working: of the job that was done. as_json: print nothing.
    """
    from onnxslim_bert.documents import plain
    from onnxslim_bert.graph.files import write_atomically
    from onnxslim_bert.inspection.step_table import measure_steps
    from onnxslim_bert.job.step_files import step_files

    data, tokenizer = rows.read(report.source, working.seed)
    with progress_bar() as progress:
        asked = replace(
            working, tokenizer=tokenizer, inputs=rows.inputs, max_length=report.max_length, progress=progress
        )
        files = [report.source, *step_files(folder)]
        measured = list(measure_steps(report.source, files, data.evaluation, asked))
    text = json.dumps(plain(measured), indent=2, allow_nan=False) + "\n"
    write_atomically(folder / NAME, [text.encode()], overwrite=True)
    if not as_json:
        seen = measured[0].comparison
        judged = [score.metric for score in seen.scores[:1]] if seen is not None else []
        named = ["after", "size", "parameters", "FLOPs", "latency", "speed-up", *judged, *["drop"] * len(judged)]
        table = plain_table(*named)
        for step in measured:
            table.add_row(*_row(step))
        console().print(table)


def _row(step: "StepMeasured") -> Iterator[str]:
    yield step.step
    yield si(step.nbytes, "B")
    yield from ("-" if count is None else si(count) for count in (step.parameters, step.flops))
    yield "-" if step.ms is None else f"{step.ms:.2f} ms"
    yield "-" if step.speedup is None else f"{step.speedup:.2f}x"
    for score in step.comparison.scores[:1] if step.comparison is not None else ():
        yield f"{score.candidate.value:.2f}"
        yield f"{score.drop.value:.2f}"
