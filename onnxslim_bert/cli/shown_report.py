"""The report of a job, printed: as one JSON document, or as lines."""

from typing import TYPE_CHECKING

from onnxslim_bert.cli.reading_options import clamped
from onnxslim_bert.cli.screen import echo, echo_json

if TYPE_CHECKING:
    from onnxslim_bert.job.report import Report


def show_report(report: "Report", asked_length: int, *, as_json: bool) -> None:
    """Print `report`; asked_length: the tokens of a row that the user asked for, where the model may serve fewer."""
    if as_json:
        echo_json(report.json())
        return
    for line in (*report.lines(), *clamped(asked_length, report.max_length)):
        echo(line)
