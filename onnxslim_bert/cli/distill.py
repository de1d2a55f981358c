"""`onnxslim distill`: a small student of a model, as one recipe."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxslim_bert.cli.gate_options import held_to
from onnxslim_bert.cli.options import COUNT, Finite, ModelFile, refuse_all_but, refuse_ignored
from onnxslim_bert.cli.progress import progress_bar
from onnxslim_bert.cli.reading_options import RowOptions, works_on_rows
from onnxslim_bert.cli.screen import echo
from onnxslim_bert.cli.shown_report import show_report

if TYPE_CHECKING:
    from onnxslim_bert.job.seal import Gate


@click.command(
    epilog="Needs PyTorch: pip install 'onnxslim-bert[distill]'. Exit code: 0 written; 2 usage, model or data. "
    "A missed budget writes nothing: 3 accuracy or agreement; 4 latency; 6 size."
)
@click.argument("model", type=ModelFile())
@click.option(
    "--student",
    required=True,
    metavar="SIZES|KIND",
    help="A transformer cut from MODEL, like layers=3,hidden=192,heads=6,neurons=768 or bottleneck=128; or static or "
    "bilstm, like static,width=48.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.")
@click.option("--calib", help="Texts that cuts are measured on: a GLUE name, a built-in set like `reviews`, or a file.")
@click.option("--corpus", help="Texts to learn from, without labels  [default: those of --calib].")
@click.option("--data", help="Texts to evaluate on, none of which is learnt from.")
@click.option("--texts", type=COUNT, help="Texts to train on, copies with replaced tokens included.  [default: 24000]")
@click.option("--minutes", type=Finite(0, min_open=True), help="Train so long, in place of seeing each text once.")
@click.option(
    "--stages",
    type=COUNT,
    default=1,
    show_default=True,
    help="Trainings that share texts or minutes, each twice as long as the one before: all but the last of models of "
    "sizes in between.",
)
@click.option("--tokens", type=COUNT, help="Rows of the word table to keep, those that texts use most.")
@click.option("--int8", is_flag=True, help="Quantize the student for this machine.")
@held_to(least=0)
@works_on_rows(512)
@click.option("--dry-run", is_flag=True, help="Only print the recipe, for `onnxslim slim -p`.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def distill(
    model: Path,
    student: str,
    output: Path | None,
    calib: str | None,
    corpus: str | None,
    data: str | None,
    texts: int | None,
    minutes: float | None,
    stages: int,
    tokens: int | None,
    int8: bool,
    gate: "Gate",
    reading: RowOptions,
    dry_run: bool,
    as_json: bool,
    force: bool,
) -> None:
    """Train a small student to answer as MODEL does, without labels, and write it.

    \b
    onnxslim distill model.onnx --student layers=3,heads=6,neurons=768 --calib sst2 --data sst2 -o small.onnx
    onnxslim distill model.onnx --student layers=4,hidden=256 --int8 --minutes 5 --calib texts.txt -o small.onnx
    onnxslim distill model.onnx --student layers=2,heads=4 --stages 2 --calib sst2 --corpus sst2 -o small.onnx
    onnxslim distill model.onnx --student static,width=48 --tokens 12000 --calib sst2 --corpus sst2 -o small.onnx
    onnxslim distill model.onnx --student bilstm --dry-run

    It is a recipe: `--dry-run` prints it, and `slim -p` runs it with other steps or options.
    """
    from onnxslim_bert.job.job import Job
    from onnxslim_bert.job.run import run
    from onnxslim_bert.job.student_recipe import Lesson, student_recipe
    from onnxslim_bert.model.onnx_model import Model

    if dry_run:
        refuse_all_but(["student", "texts", "minutes", "stages", "tokens", "int8", "dry_run"], "with --dry-run")
    elif output is None or calib is None:
        raise click.UsageError("give -o OUTPUT, and texts with --calib; or --dry-run")
    elif data is None:
        refuse_ignored(["label_column"], "without --data")
    lesson = Lesson(texts or 0, minutes or 0.0, tokens or 0, int8, stages)
    recipe = student_recipe(student, Model.load(model).encoder, lesson)
    if dry_run or output is None:
        echo(str(recipe))
        return
    with progress_bar() as progress:
        job = Job(
            source=model,
            output=output,
            recipe=recipe,
            data=reading.sources(calib, data, corpus, own_split=False),
            working=reading.working(progress),
            gate=gate,
            report=False,
            timing=False,
            overwrite=force,
        )
        report = run(job)
    show_report(report, reading.max_length, as_json=as_json)
    report.enforce()
