"""`onnxslim validate`: does a candidate still do the base's task?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxslim_bert.cli.gate_options import held_to
from onnxslim_bert.cli.options import COUNT, SEED, THREADS, ModelFile, refuse_ignored
from onnxslim_bert.cli.progress import progress_bar
from onnxslim_bert.cli.reading_options import clamped, judges, reads_texts
from onnxslim_bert.cli.screen import echo, echo_json
from onnxslim_bert.cli.summary_files import SummaryFiles, summarized
from onnxslim_bert.cli.targets_option import places, runs_on

if TYPE_CHECKING:
    from onnxslim_bert.job.seal import Gate
    from onnxslim_bert.targets.target import Target

PATH = click.Path(exists=True, path_type=Path)


@click.command(
    epilog="Exit code: 0 every budget met; 3 accuracy, agreement or NaN; 4 latency; 5 provider missing or fell back; "
    "6 size; 2 bad usage, model or data."
)
@click.argument("base", type=ModelFile())
@click.argument("candidates", metavar="CANDIDATE...", nargs=-1, required=True, type=ModelFile())
@click.option(
    "--data",
    required=True,
    help="A GLUE name (its validation split), a built-in set like `reviews`, or a file.",
)
@click.option("--text-column", "text_columns", multiple=True, help="Name one or two text columns of a file.")
@click.option("--label-column", help="Name the label column of a file.")
@click.option("--rows", type=COUNT, help="Evaluate a random sample of this many rows.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the sample and the resampling.")
@click.option("--tokenizer", type=PATH, help="Folder or tokenizer.json  [default: BASE's folder]")
@reads_texts
@judges
@click.option("--batch", type=COUNT, default=1, show_default=True, help="Rows a run; 1 runs at natural length.")
@click.option("--max-length", type=COUNT, default=128, show_default=True, help="Tokens kept of a row.")
@held_to("BASE", "CANDIDATE")
@runs_on
@click.option("--seq", type=COUNT, help="Tokens to which providers of fixed shapes get open dimensions.")
@click.option("--latency", is_flag=True, help="Time the models and their memory, too.")
@click.option("--threads", type=THREADS, default=1, show_default=True, help="Of each session.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
@summarized
def validate(
    base: Path,
    candidates: tuple[Path, ...],
    data: str,
    text_columns: tuple[str, ...],
    label_column: str | None,
    rows: int | None,
    seed: int,
    tokenizer: Path | None,
    inputs: str,
    task: str,
    output_name: str,
    batch: int,
    max_length: int,
    gate: "Gate",
    targets: "tuple[Target, ...]",
    allow_fallback: bool,
    options: dict[str, dict[str, str]],
    seq: int | None,
    latency: bool,
    threads: int,
    as_json: bool,
    files: SummaryFiles,
) -> None:
    """Compare every CANDIDATE with BASE on the same rows and hold it to budgets, on every provider.

    With labels: the task metric, its drop with a paired bootstrap interval, McNemar's test. Always: agreement and
    distance of the outputs. A budget inside the interval is inconclusive, which fails only with --strict.
    BASE runs on the CPU provider, whatever CANDIDATE runs on. QNN is emulated: its answers count, its times do not.

    \b
    onnxslim validate model.onnx model.int8.onnx --data sst2
    onnxslim validate model.onnx model.int8.onnx --data sst2 --max-drop 1 --min-speedup 1.5 --max-size 24MB
    onnxslim validate model.onnx model.int8.onnx --data texts.txt --min-agreement 99 --json --junit gates.xml
    onnxslim validate model.onnx model.qnn.onnx --data sst2 --rows 200 --ep cpu,qnn --min-agreement 99
    """
    from onnxslim_bert.calibration.load_tokenizer import tokenizer_of
    from onnxslim_bert.calibration.loading import load_dataset
    from onnxslim_bert.calibration.working import Working
    from onnxslim_bert.cli.validation_tables import show, show_all
    from onnxslim_bert.inspection.verify.markdown import validation_summary
    from onnxslim_bert.proof.gates import enforce
    from onnxslim_bert.proof.validate import validate_all
    from onnxslim_bert.proof.validation import document
    from onnxslim_bert.targets.table import CPU

    files.check([base, *candidates])
    if not any(target.fixed_shapes for target in targets):
        refuse_ignored(["seq"], "on providers that take open shapes")
    where = places(targets, allow_fallback, options, (batch, seq) if seq else None)
    dataset = load_dataset(
        data,
        "evaluation",
        rows=rows,
        seed=seed,
        text_columns=text_columns or None,
        label_column=label_column,
        task=task,
        output=output_name,
    )
    if dataset.feeds is not None:
        refuse_ignored(["tokenizer", "text_columns", "max_length", "inputs"], "with ready inputs")
    reader = tokenizer_of(base, tokenizer, inputs) if dataset.feeds is None else None
    with progress_bar() as progress:
        results = validate_all(
            base,
            candidates,
            dataset,
            Working(max_length, threads, seed, reader, progress=progress),
            gate.budgets,
            places=where,
            latency=latency,
            batch_size=batch,
        )
    verdicts = [verdict for result in results for verdict in result.verdicts]
    suite = f"{', '.join(candidate.name for candidate in candidates)} on {dataset.name}"
    files.write(suite, verdicts, lambda case: case.fails(gate.strict), lambda: validation_summary(document(results)))
    if as_json:
        echo_json(document(results))
    elif len(results) == 1 and targets == (CPU,):
        show(results[0])
    else:
        show_all(results)
    if not as_json:
        for line in clamped(max_length, results[0].max_length):
            echo(line)
    enforce(verdicts, gate.strict)
