"""`onnxslim zoo run`."""

import sys
from pathlib import Path

import click

from onnxslim_bert.cli import INTERRUPTED, fail
from onnxslim_bert.cli.options import COUNT, refuse_ignored
from onnxslim_bert.cli.screen import console, echo, echo_json
from onnxslim_bert.cli.summary_files import SummaryFiles, summarized


@click.command(
    epilog="Exit code: that of the worst job. 1 crashed or stopped at a limit; 2 model, data, disk or storage; "
    "3 to 6 budgets missed, 5 also a target without a worker."
)
@click.argument("plan", metavar="ZOO", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the run."
)
@click.option("--calib", help="Calibration texts for a ZOO that is a folder of models.")
@click.option("--engine", default="local", show_default=True, help="Where jobs run: local, or dask://HOST:PORT.")
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=600,
    show_default=True,
    help="Seconds for which a target may have no worker before its jobs are given up.",
)
@click.option("--jobs", type=COUNT, help="Local processes at once  [default: one for each CPU, as memory allows]")
@click.option("--storage", help="Where artefacts go: a folder or a URL, like s3://bucket/zoo  [default: OUTPUT]")
@click.option("--strict", is_flag=True, help="Fail on verdicts that the data cannot carry.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as one JSON document.")
@summarized
def run(
    plan: Path,
    output: Path,
    calib: str | None,
    engine: str,
    patience: float,
    jobs: int | None,
    storage: str | None,
    strict: bool,
    as_json: bool,
    files: SummaryFiles,
) -> None:
    """Run what ZOO asks for, a zoo file or a folder of models, and leave what is there already.

    \b
    onnxslim zoo run zoo.toml -o out
    onnxslim zoo run exports --calib sst2 -o out
    onnxslim zoo run zoo.toml -o out --engine dask://10.0.0.7:8786 --storage s3://models/zoo

    A folder with a zoo.toml in it is that file. Of another, every encoder is a model, and so is a file that cannot be
    read: its job fails, and says why. A job is known by the content of its model, recipe and data and by the
    versions of the software; one that ended is not run again, unless it was blocked, by a full disk or for want of a
    worker, or stopped at a limit that is wider now.
    Interrupted or killed, the same command goes on where it was.
    """
    from onnxslim_bert.cli.zoo_watch import watching
    from onnxslim_bert.inspection.verify.markdown import run_summary
    from onnxslim_bert.proof.documents import report_json
    from onnxslim_bert.wording import plural
    from onnxslim_bert.zoo.engines.named import engine_named
    from onnxslim_bert.zoo.planning.init import propose
    from onnxslim_bert.zoo.planning.zoo_file import read_zoo
    from onnxslim_bert.zoo.rows import exit_code, verdicts_of
    from onnxslim_bert.zoo.run import run_zoo
    from onnxslim_bert.zoo.summary import summary

    if (plan / "zoo.toml").is_file():
        plan = plan / "zoo.toml"
    files.check()
    if not plan.is_dir():
        refuse_ignored(["calib"], "with a zoo file, which names its data")
    if engine == "local":
        refuse_ignored(["patience"], "without workers elsewhere")
    else:
        refuse_ignored(["jobs"], "with workers elsewhere")
    if plan.is_dir():
        proposal = propose(plan, plan / "zoo.toml", calib, unreadable=True)
        wanted = proposal.plan
        for item in proposal.left_out:
            echo(f"left out: {item.path}: {item.reason}", err=True)
    else:
        wanted = read_zoo(plan)
    for path in wanted.written:
        echo(f"left out: {path}: written by onnxslim-bert; a [[models]] with this path would take it", err=True)
    runner = engine_named(engine, jobs, patience=patience)
    try:
        with watching() as watch:
            found = run_zoo(wanted, output, runner, storage=storage, strict=strict, watch=watch)
    except KeyboardInterrupt:
        fail(f"interrupted; what has ended is in {output}, and the same command goes on from there", code=INTERRUPTED)
    kept = sum(row.cached and row.status not in ("done", "waiting") for row in found.rows)
    if kept:
        said = f"{plural(kept, 'job')} failed before and {'was' if kept == 1 else 'were'} not tried again"
        echo(f"{said}: `onnxslim zoo retry {output}` lets them run", err=True)
    document = report_json(found)
    files.write(plan.name, verdicts_of(found.rows), lambda case: case.fails(strict), lambda: run_summary(document))
    if as_json:
        echo_json(document)
    else:
        screen = console()
        screen.print(summary(found, screen.width))
    sys.exit(exit_code(found.rows))
