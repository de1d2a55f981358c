"""`onnxslim quantize`: the main job."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from onnxslim_bert.cli.folder_options import FolderOptions, told, writes_folder, written_as_folder
from onnxslim_bert.cli.gate_options import held_to
from onnxslim_bert.cli.options import TARGETS, counts, refuse_ignored
from onnxslim_bert.cli.progress import progress_bar
from onnxslim_bert.cli.reading_options import RowOptions, works_on_rows
from onnxslim_bert.cli.screen import echo
from onnxslim_bert.cli.shown_report import show_report
from onnxslim_bert.errors import NothingChangedError, PassError

if TYPE_CHECKING:
    from onnxslim_bert.calibration.ranges import Method
    from onnxslim_bert.job.seal import Gate
    from onnxslim_bert.recipes.lowering import Mode

METHODS = ["minmax", "moving-average", "percentile", "entropy", "mse"]


@click.command(
    epilog="Exit code: 0 written; 2 usage, model or data; 5 provider. A missed budget writes nothing: 3 accuracy or "
    "agreement; 4 latency; 6 size."
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--calib",
    help="Calibration texts: a GLUE name (its training split), a built-in set like `reviews`, or a file.",
)
@click.option(
    "--data", help="Evaluation texts  [default: the validation split of --calib; of a file half of it, held back]"
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write; a folder for several lengths, or when MODEL is one  [default: MODEL.int8.onnx, "
    "MODEL.qnn.onnx, ...; the folder MODEL-int8, ...]",
)
@written_as_folder
@click.option(
    "--target",
    type=click.Choice([*TARGETS, "auto"]),
    default="cpu",
    show_default=True,
    help="On what the model is to run; auto times what executes here and takes the fastest.",
)
@click.option(
    "--seq",
    "lengths",
    callback=counts,
    metavar="N,...",
    help="Tokens in a row, for qnn, coreml and nnapi; several write a folder with a file for each.",
)
@click.option(
    "--mode",
    type=click.Choice(["static", "dynamic", "weight-only", "fp16", "fp32", "auto"]),
    help="Calibrated int8 (static), int8 with ranges found at run time (dynamic), the first where it measures as well "
    "on hard rows (auto), int8 weights alone, half precision, or the target's graph form alone  [default: the target's "
    "best measured; auto for cpu]",
)
@click.option(
    "--method", type=click.Choice(METHODS), help="How activation ranges are found  [default: the best measured]"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["contrib", "newest", "qdq"]),
    default="contrib",
    show_default=True,
    help="ONNX Runtime's own operators; those and ONNX's attention, faster to 256 tokens, for onnxruntime 1.24 and "
    "later (newest); or standard ones only (qdq).",
)
@click.option("--no-smooth", is_flag=True, help="Leave out smoothing and the splitting of outliers.")
@click.option(
    "--reduce-range/--full-range",
    "reduce_range",
    default=None,
    help="Keep int8 products within 16 bits, for CPUs with AVX2 but no VNNI  [default: as this machine needs]",
)
@click.option("--allow-fallback", is_flag=True, help="Accept nodes that the target leaves to the CPU.")
@click.option("--batch", is_flag=True, help="For ragged batches: dense layers skip padding.")
@works_on_rows(256)
@held_to()
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON document instead of a table.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--in-place", is_flag=True, help="Replace MODEL itself.")
def quantize(
    model: Path,
    calib: str | None,
    data: str | None,
    output: Path | None,
    placed: FolderOptions,
    target: str,
    lengths: list[int] | None,
    mode: "Mode | None",
    method: "Method | None",
    form: Literal["contrib", "newest", "qdq"],
    no_smooth: bool,
    reduce_range: bool | None,
    allow_fallback: bool,
    batch: bool,
    reading: RowOptions,
    gate: "Gate",
    as_json: bool,
    force: bool,
    in_place: bool,
) -> None:
    """Write a quantized MODEL and a report of what it is worth: size, accuracy, agreement, speed.

    \b
    onnxslim quantize model.onnx --calib sst2
    onnxslim quantize model.onnx --calib sst2 --max-drop 1 --min-agreement 98 --min-speedup 2 --max-size 24MB
    onnxslim quantize model.onnx --calib texts.txt --data labelled.tsv -o small.onnx
    onnxslim quantize model.onnx --mode dynamic --data sst2
    onnxslim quantize model.onnx --calib stsb --format qdq --method mse --json
    onnxslim quantize model.onnx --target qnn --seq 32,64,128 --calib sst2
    onnxslim quantize model.onnx --target openvino --data sst2
    onnxslim quantize model.onnx --target auto --calib sst2
    onnxslim quantize all-MiniLM-L6-v2/ --calib stsb -o all-MiniLM-L6-v2-int8/

    MODEL may be a folder of Hugging Face or sentence-transformers: its ONNX file is taken, or made of its PyTorch
    weights (extra [export]). OUTPUT is then a folder with the new model, the source's other files as they are, without
    its weights, and a model card with what was measured. -o MODEL adds the new model to MODEL itself.
    """
    from onnxslim_bert.graph.model_folders import find_model
    from onnxslim_bert.job.deployment import Deployment
    from onnxslim_bert.job.fastest_target import data_for, fastest_target
    from onnxslim_bert.job.job import Job
    from onnxslim_bert.job.load import check_free
    from onnxslim_bert.job.main_recipe import Quantization, check_calibration, default_output, main_recipe
    from onnxslim_bert.job.run import run
    from onnxslim_bert.proof.documents import report_path

    if calib is None:
        refuse_ignored(["rows"], "without --calib")
    if calib is None and data is None:
        refuse_ignored(["tokenizer", "text_columns", "task", "output_name"], "without --calib or --data")
        refuse_ignored(["label_column"], "without --data")
    if in_place:
        refuse_ignored(["output"], "with --in-place")
    of_folders = writes_folder(model, output, in_place)
    model = model if of_folders else find_model(model)
    what = Quantization(mode, method, form, not no_smooth, batch, reduce_range)
    sources = reading.sources(calib, data)
    with progress_bar() as progress:
        working = reading.working(progress)
        if target == "auto":
            refuse_ignored(["lengths", "allow_fallback"], "with --target auto")
            found = fastest_target(find_model(model), sources, what, working)
            target, sources = found.target, data_for(sources, what, found.target)
            echo(found.why, err=as_json)
        where = Deployment(target, tuple(lengths or ()), allow_fallback)
        job = Job(
            source=model,
            output=model if in_place else output or default_output(model, what, where),
            recipe=main_recipe(what, where),
            data=sources,
            deployment=where,
            working=working,
            gate=gate,
            overwrite=force,
            in_place=in_place,
        )
        folder = placed.job(job) if of_folders else None
        check_free(job) if folder is None else folder.check()
        placed.check_metrics()
        check_calibration(what, where, given=sources.calibration is not None)
        try:
            report = run(job) if folder is None else folder.run()
        except NothingChangedError as error:
            if error.name != "unpad":
                raise
            raise PassError(f"--batch: padding cannot be dropped: {error.reason}: leave the option out") from error
    placed.keep_metrics(report)
    show_report(report, reading.max_length, as_json=as_json)
    if report.published and not as_json:
        echo(f"{report.output} and {report_path(report.output)} written")
        for line in told(folder) if folder is not None else ():
            echo(line)
    report.enforce()
