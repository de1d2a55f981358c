"""`onnxslim zoo diff`: two runs compared."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxslim_bert.cli.options import Finite
from onnxslim_bert.cli.screen import console, echo, echo_json, plain_table
from onnxslim_bert.cli.summary_files import SummaryFiles, summarized

if TYPE_CHECKING:
    from onnxslim_bert.zoo.differences.diff import Diff

RUN = click.Path(exists=True, path_type=Path)
COLOURS = {
    **dict.fromkeys(("newly failing", "missing", "worse", "failing still"), "red"),
    **dict.fromkeys(("mended", "better"), "green"),
}


@click.command(
    epilog="Exit code: 0 no regression; of a job that fails now and did not, its own (1 crashed or stopped at a limit; "
    "2 model or data); 2 a job is missing; 3 accuracy, agreement or NaN; 4 latency; 5 a provider takes less; 6 size. "
    "Of several, the lowest."
)
@click.argument("old", type=RUN)
@click.argument("new", type=RUN)
@click.option(
    "--max-drop", type=Finite(0, 100), default=0.5, show_default=True, help="Points of the metric lost since OLD."
)
@click.option(
    "--max-agreement-loss",
    type=Finite(0, 100),
    default=1.0,
    show_default=True,
    help="Percent of rows with the source's class lost since OLD; of cosine or correlation where there are no classes.",
)
@click.option(
    "--max-slowdown", type=Finite(min=0), default=10.0, show_default=True, help="Percent of time more than in OLD."
)
@click.option(
    "--max-growth", type=Finite(min=0), default=1.0, show_default=True, help="Percent of size more than in OLD."
)
@click.option("--allow-missing", is_flag=True, help="Accept that jobs of OLD are not in NEW.")
@click.option("--strict", is_flag=True, help="Fail, too, when the data cannot carry a verdict.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@summarized
def diff(
    old: Path,
    new: Path,
    max_drop: float,
    max_agreement_loss: float,
    max_slowdown: float,
    max_growth: float,
    allow_missing: bool,
    strict: bool,
    as_json: bool,
    files: SummaryFiles,
) -> None:
    """Compare two runs, OLD and NEW, folders of `zoo run` or their run.json; fail where a job got worse.

    Jobs are paired by model, recipe and target. Each is compared with its own source first, so that a drop or a
    speed-up means the same in both runs. Worse is only what lies beyond what the intervals of both can explain; it
    fails beyond its budget here, which counts from OLD, as those of the zoo file count from the source. A budget inside
    the interval is inconclusive, and so are other evaluation rows and times of another kind of CPU: that fails with
    --strict only. Any node that a provider no longer takes fails, and any piece more.

    \b
    onnxslim zoo diff out-1.4 out
    onnxslim zoo diff out-1.4/run.json out --max-slowdown 25 --markdown summary.md --junit diff.xml
    """
    from onnxslim_bert.proof.documents import report_json
    from onnxslim_bert.zoo.differences.diff import diff as diff_runs
    from onnxslim_bert.zoo.differences.diff_tables import diff_summary
    from onnxslim_bert.zoo.differences.regressions import Limits, check
    from onnxslim_bert.zoo.documents import load_run

    files.check([old, new])
    limits = Limits(max_drop, max_agreement_loss, max_slowdown, max_growth, allow_missing)
    found = diff_runs(load_run(old), load_run(new), limits, (str(old), str(new)))
    verdicts = [finding.verdict for finding in found.findings]
    files.write(f"{old} to {new}", verdicts, lambda case: case.fails(strict), lambda: diff_summary(found, strict))
    if as_json:
        echo_json(report_json(found))
    else:
        show(found)
    check(found.findings, strict)


def show(found: "Diff") -> None:
    """Print the jobs that changed, and how many did."""
    from onnxslim_bert.zoo.differences.diff_tables import HEADERS, rows

    lines = list(rows(found))
    if lines:
        table = plain_table(*HEADERS)
        for line in lines:
            table.add_row(*line, style=COLOURS.get(line[1]))
        console().print(table)
    echo(found.summary)
