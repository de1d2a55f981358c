"""`onnxslim validate`: does a candidate still do the base's task?"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxslim_bert.cli.options import COUNT, SEED, THREADS, Finite, refuse_ignored
from onnxslim_bert.cli.progress import progress_bar

if TYPE_CHECKING:
    from onnxslim_bert.proof.comparison import Comparison
    from onnxslim_bert.proof.intervals import Interval
    from onnxslim_bert.proof.validate import Validation

PATH = click.Path(exists=True, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    epilog="Exit code: 0 every budget met; 3 accuracy, agreement or NaN; 4 latency; 6 size; 2 bad usage, model or data."
)
@click.argument("base", type=FILE)
@click.argument("candidate", type=FILE)
@click.option("--data", required=True, help="A GLUE name (its validation split), `reviews`, or a file.")
@click.option("--text-column", "text_columns", multiple=True, help="Name one or two text columns of a file.")
@click.option("--label-column", help="Name the label column of a file.")
@click.option("--rows", type=COUNT, help="Evaluate a random sample of this many rows.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the sample and the resampling.")
@click.option("--tokenizer", type=PATH, help="Folder or tokenizer.json  [default: BASE's folder]")
@click.option("--batch", type=COUNT, default=1, show_default=True, help="Rows a run; 1 runs at natural length.")
@click.option("--max-length", type=COUNT, default=128, show_default=True, help="Tokens kept of a row.")
@click.option("--max-drop", type=Finite(-100, 100), help="Points that the task metric may drop.")
@click.option("--min-agreement", type=Finite(0, 100), help="Percent of rows that must get the base's class.")
@click.option("--min-speedup", type=Finite(min=0), help="Latency of BASE over that of CANDIDATE, timed on the rows.")
@click.option("--max-size", metavar="SIZE", help="Bytes of CANDIDATE with its external data, like 24MB or 23.5MiB.")
@click.option("--strict", is_flag=True, help="Fail, too, when the data cannot carry a verdict.")
@click.option("--threads", type=THREADS, default=1, show_default=True, help="Of each session.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write the verdicts as JUnit XML.")
@click.option("--force", is_flag=True, help="Replace a JUnit file that exists.")
def validate(
    base: Path,
    candidate: Path,
    data: str,
    text_columns: tuple[str, ...],
    label_column: str | None,
    rows: int | None,
    seed: int,
    tokenizer: Path | None,
    batch: int,
    max_length: int,
    max_drop: float | None,
    min_agreement: float | None,
    min_speedup: float | None,
    max_size: str | None,
    strict: bool,
    threads: int,
    as_json: bool,
    junit: Path | None,
    force: bool,
) -> None:
    """Compare CANDIDATE with BASE on the same rows and hold it to budgets.

    With labels: the task metric, its drop with a paired bootstrap interval, McNemar's test. Always: agreement and
    distance of the outputs. A budget inside the interval is inconclusive, which fails only with --strict.

    \b
    onnxslim validate model.onnx model.int8.onnx --data sst2
    onnxslim validate model.onnx model.int8.onnx --data sst2 --max-drop 1 --min-speedup 1.5 --max-size 24MB
    onnxslim validate model.onnx model.int8.onnx --data texts.txt --min-agreement 99 --json --junit gates.xml
    """
    from onnxslim_bert.calibration.datasets import load_dataset
    from onnxslim_bert.calibration.tokenizer import load_tokenizer
    from onnxslim_bert.output import check_output, write_atomically
    from onnxslim_bert.proof.gates import Budgets, enforce, parse_size
    from onnxslim_bert.proof.junit import junit as junit_xml
    from onnxslim_bert.proof.validate import validate as run_validation

    if junit:
        check_output(junit, overwrite=force, inputs=[base, candidate])
    else:
        refuse_ignored(["force"], "without --junit")
    budgets = Budgets(max_drop, min_agreement, min_speedup, parse_size(max_size) if max_size else None)
    dataset = load_dataset(
        data, "evaluation", rows=rows, seed=seed, text_columns=text_columns or None, label_column=label_column
    )
    if dataset.feeds is not None:
        refuse_ignored(["tokenizer", "text_columns", "max_length"], "with ready inputs")
    reader = load_tokenizer(tokenizer or base.parent) if dataset.feeds is None else None
    with progress_bar() as progress:
        result = run_validation(
            base,
            candidate,
            dataset,
            reader,
            budgets,
            batch_size=batch,
            max_length=max_length,
            threads=threads,
            seed=seed,
            progress=progress,
        )
    if junit:
        suite = f"{candidate.name} on {dataset.name}"
        write_atomically(junit, [junit_xml(suite, result.verdicts, strict)], overwrite=force)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2, allow_nan=False))
    else:
        show(result)
    enforce(result.verdicts, strict)


def show(result: "Validation") -> None:
    """Print the evidence and the verdicts."""
    from rich.console import Console
    from rich.table import Table

    seen, before, after = result.comparison, result.base_bytes / 1e6, result.candidate_bytes / 1e6
    click.echo(f"{seen.data} {seen.split}, {seen.rows} rows")
    table = Table("", "base", "candidate", "drop", box=None, padding=(0, 2, 0, 0))
    for score in seen.scores:
        table.add_row(score.metric, *(spread(interval) for interval in (score.base, score.candidate, score.drop)))
    table.add_row("size", f"{before:.1f} MB", f"{after:.1f} MB", f"{before / after:.2f}x")
    if result.bench:
        first, second = result.bench.latencies
        gain = second.speedup
        faster = f"{gain.value:.2f}x ({gain.low:.2f} to {gain.high:.2f})"
        table.add_row("latency", f"{first.median_ms:.2f} ms", f"{second.median_ms:.2f} ms", faster)
    Console().print(table)
    for line in (*facts(seen), *(f"{verdict.gate} {verdict.outcome}: {verdict.note}" for verdict in result.verdicts)):
        click.echo(line)


def facts(seen: "Comparison") -> Iterator[str]:
    """One line for each thing that needs no label, and for McNemar's test."""
    close = seen.fidelity
    if close.agreement:
        yield f"agreement: {spread(close.agreement)} % of rows"
    yield f"{seen.output}: |difference| mean {close.mean_difference:.4g}, max {close.max_difference:.4g}"
    if close.kl is not None:
        yield f"KL(base || candidate): {close.kl:.3g} nats"
    if close.correlation is not None:
        yield f"one output, no argmax: correlation with the base {close.correlation:.2f}, shift {close.shift:+.4g}"
    if close.cosine is not None:
        yield f"cosine: mean {close.cosine:.6f}, least {close.min_cosine:.6f}"
    if seen.mcnemar:
        test = seen.mcnemar
        yield f"McNemar: only base right {test.only_base}, only candidate {test.only_candidate}, p {test.p:.3g}"


def spread(interval: "Interval") -> str:
    """A value with its interval."""
    return f"{interval.value:.2f} ({interval.low:.1f} to {interval.high:.1f})"
