"""`onnxslim verify`: is a model what it says it is, and does it still pass its gate?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxslim_bert.cli.options import ModelFile
from onnxslim_bert.cli.progress import progress_bar
from onnxslim_bert.cli.reading_options import judges, reads_texts
from onnxslim_bert.cli.screen import echo, echo_json
from onnxslim_bert.cli.summary_files import SummaryFiles, summarized
from onnxslim_bert.cli.targets_option import targets_of

if TYPE_CHECKING:
    from onnxslim_bert.inspection.verify.verification import Verification
    from onnxslim_bert.targets.target import Target


@click.command(
    epilog="Exit code: 0 as recorded, and every budget met; 2 bytes, source or data are not what was recorded, or "
    "nothing was; 3 other answers than recorded, or a budget for them missed; 4 latency; 5 provider; 6 size."
)
@click.argument("model", type=ModelFile())
@click.option("--base", type=ModelFile(), help="What MODEL was made of  [default: the file of that name beside MODEL]")
@click.option(
    "--data",
    help="Where the evaluation rows are now: a GLUE name, a built-in set like `reviews`, or a file.",
)
@click.option("--calib", help="Where the calibration rows are now.")
@click.option("--corpus", help="Where the texts of the corpus are now.")
@click.option(
    "--tokenizer",
    type=click.Path(exists=True, path_type=Path),
    help="Folder or tokenizer.json  [default: BASE's folder]",
)
@reads_texts
@judges
@click.option(
    "--ep", "targets", callback=targets_of, metavar="EP,...", default="",
    help="Ask MODEL on these providers, too, emulated cpu@arm64 for instance.",
)  # fmt: skip
@click.option("--allow-missing-data", is_flag=True, help="Pass without rows that are not here, and without the gate.")
@click.option("--strict", is_flag=True, help="Fail, too, on what cannot be decided.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@summarized
def verify(
    model: Path,
    base: Path | None,
    data: str | None,
    calib: str | None,
    corpus: str | None,
    tokenizer: Path | None,
    inputs: str,
    task: str,
    output_name: str,
    targets: "tuple[Target, ...]",
    allow_missing_data: bool,
    strict: bool,
    as_json: bool,
    files: SummaryFiles,
) -> None:
    """Check MODEL against what was recorded in it, and run its gate again.

    The bytes of MODEL and its external data, of its source, tokenizer and data are compared with the hashes in MODEL;
    then both models answer the recorded rows, as they did when MODEL was made, and are held to the recorded answers
    and budgets. No signature: whoever can write MODEL can write another record; sign what you publish.

    \b
    onnxslim verify model.int8.onnx
    onnxslim verify release/model.int8.onnx --base model.onnx --data labelled.tsv
    onnxslim verify model.int8.onnx --ep cpu@arm64
    onnxslim verify model.int8.onnx --allow-missing-data --json --junit verify.xml
    """
    from onnxslim_bert.inspection.verify.markdown import verification_summary
    from onnxslim_bert.inspection.verify.verify import Now
    from onnxslim_bert.inspection.verify.verify import verify as run_verify
    from onnxslim_bert.proof.documents import report_json

    if strict and allow_missing_data:
        raise click.UsageError("--allow-missing-data passes what --strict fails: give one of them")
    files.check([model, *([base] if base else [])])
    given = {name: spec for name, spec in (("evaluation", data), ("calibration", calib), ("corpus", corpus)) if spec}
    with progress_bar() as progress:
        now = Now(base, tokenizer, given, allow_missing_data, inputs, task, output_name, targets)
        result = run_verify(model, now, strict=strict, progress=progress)
    files.write(f"verify {model.name}", result.cases, result.fails, lambda: verification_summary(report_json(result)))
    if as_json:
        echo_json(report_json(result))
    else:
        show(result)
    result.enforce()


def show(result: "Verification") -> None:
    """Print what was recorded and what was found."""
    from onnxslim_bert.proof.comparison_lines import compared

    made = result.provenance
    echo(f"{result.model}: {made.recipe}")
    echo(f"made of {made.source} by onnxslim-bert {made.onnxslim_bert}, onnxruntime {made.onnxruntime}")
    seen = result.comparison
    if seen is not None:
        for line in compared(seen):
            echo(line)
    for case in result.cases:
        echo(case)
